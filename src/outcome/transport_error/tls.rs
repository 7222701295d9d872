//! Failed handshakes that no retry changes.

use std::error::Error;

/// Returns whether the server's certificate, or all that it offers, was refused.
#[cfg(feature = "rustls-errors")]
pub(super) fn is_refused_certificate(link: &(dyn Error + 'static)) -> bool {
    matches!(
        link.downcast_ref::<rustls::Error>(),
        Some(
            rustls::Error::InvalidCertificate(_)
                | rustls::Error::NoCertificatesPresented
                | rustls::Error::UnsupportedNameType
                | rustls::Error::PeerIncompatible(_)
        )
    )
}

/// Returns whether the server ended the handshake by a permanent alert: it refuses the version, the
/// name, or the client's certificate or its absence.
///
/// With TLS 1.3 a server judges the client's certificate only after the handshake.
#[cfg(feature = "rustls-errors")]
pub(super) fn is_final_alert(link: &(dyn Error + 'static)) -> bool {
    use rustls::AlertDescription::*;

    let Some(rustls::Error::AlertReceived(alert)) = link.downcast_ref() else { return false };
    matches!(
        alert,
        AccessDenied
            | BadCertificate
            | BadCertificateHashValue
            | BadCertificateStatusResponse
            | CertificateExpired
            | CertificateRequired
            | CertificateRevoked
            | CertificateUnknown
            | CertificateUnobtainable
            | EncryptedClientHelloRequired
            | ExportRestriction
            | HandshakeFailure
            | IllegalParameter
            | InappropriateFallback
            | InsufficientSecurity
            | MissingExtension
            | NoApplicationProtocol
            | NoCertificate
            | ProtocolVersion
            | UnknownCA
            | UnknownPSKIdentity
            | UnrecognisedName
            | UnsupportedCertificate
            | UnsupportedExtension
    )
}

#[cfg(not(feature = "rustls-errors"))]
pub(super) fn is_refused_certificate(_: &(dyn Error + 'static)) -> bool {
    false
}

#[cfg(not(feature = "rustls-errors"))]
pub(super) fn is_final_alert(_: &(dyn Error + 'static)) -> bool {
    false
}
