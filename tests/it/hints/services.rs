//! The retry hints of real services, and the wait that each means.
//!
//! Values are those of the services' public documentation, moved to the clock of the test, which
//! stands at Wed, 21 Oct 2015 07:28:00 GMT, 1445412480 seconds after 1970.

/// The service, the status, the header lines, and the seconds to wait; `None` where nothing says.
pub(crate) type Row = (&'static str, u16, &'static str, Option<f64>);

const fn row(service: &'static str, status: u16, headers: &'static str, seconds: f64) -> Row {
    (service, status, headers, Some(seconds))
}

const fn nothing(service: &'static str, status: u16, headers: &'static str) -> Row {
    (service, status, headers, None)
}

#[rustfmt::skip]
pub(crate) const ROWS: &[Row] = &[
    // Retry-After by itself.
    row("RFC 9110", 503, "retry-after: 120", 120.0),
    row("RFC 9110, a date", 503, "retry-after: Wed, 21 Oct 2015 07:28:30 GMT", 30.0),
    row("RFC 850 date", 503, "retry-after: Wednesday, 21-Oct-15 07:28:30 GMT", 30.0),
    row("asctime date", 503, "retry-after: Wed Oct 21 07:28:30 2015", 30.0),
    row("Slack", 429, "retry-after: 30", 30.0),
    row("Notion", 429, "retry-after: 2", 2.0),
    row("Spotify", 429, "retry-after: 7", 7.0),
    row("Shopify", 429, "retry-after: 2.0\nx-shopify-shop-api-call-limit: 40/40", 2.0),
    row("Dropbox", 429, "retry-after: 15", 15.0),
    row("Box", 429, "retry-after: 42", 42.0),
    row("Microsoft Graph", 429, "retry-after: 10", 10.0),
    row("SharePoint", 503, "retry-after: 120", 120.0),
    row("Binance, banned", 418, "retry-after: 600", 600.0),
    row("Wikimedia", 503, "retry-after: 5", 5.0),
    row("crates.io", 429, "retry-after: Wed, 21 Oct 2015 07:28:59 GMT", 59.0),
    row("Zoom", 429, "retry-after: 2015-10-21T07:29:00Z\nx-ratelimit-type: Daily-limit", 60.0),
    row("Python, isoformat", 429, "retry-after: 2015-10-21T07:28:10.250000+00:00", 10.25),
    row("Python, str", 429, "retry-after: 2015-10-21 07:28:10+00:00", 10.0),
    row("Go, time.String", 429, "retry-after: 2015-10-21 07:28:10 +0000 UTC", 10.0),
    row("Ruby, Time#to_s", 429, "retry-after: 2015-10-21 07:28:10 UTC", 10.0),
    row("Go, RFC1123", 429, "retry-after: Wed, 21 Oct 2015 07:28:10 UTC", 10.0),
    row("Go, RFC1123Z", 429, "retry-after: Wed, 21 Oct 2015 09:28:10 +0200", 10.0),
    row("Java, ISO without seconds", 503, "retry-after: 2015-10-21T07:29Z", 60.0),
    row("JavaScript, Date#toString", 429, "retry-after: Wed Oct 21 2015 09:28:10 GMT+0200 (Central European Summer Time)", 10.0),
    row("JavaScript, a German host", 429, "retry-after: Wed Oct 21 2015 09:28:10 GMT+0200 (Mitteleuropäische Sommerzeit)", 10.0),
    row("an epoch in seconds", 429, "retry-after: 1445412500", 20.0),
    row("an epoch in milliseconds", 429, "retry-after: 1445412500250", 20.25),
    row("an epoch with a fraction", 429, "retry-after: 1445412500.25", 20.25),
    row("an epoch in the past", 503, "retry-after: 1445412400", 0.0),
    row("a date in the past", 503, "retry-after: Fri, 07 Nov 2014 23:59:59 GMT", 0.0),
    row("rate-limiter-flexible", 429, "retry-after: 12.345", 12.345),
    row("a Go duration", 503, "retry-after: 1m0s", 60.0),
    row("a short duration", 503, "retry-after: 250ms", 0.25),
    row("seconds with their unit", 503, "retry-after: 30s", 30.0),
    row("a duration in words", 503, "retry-after: 1 minute", 60.0),
    row("ISO 8601 duration", 503, "retry-after: PT1M30S", 90.0),
    row("a quoted number", 503, "retry-after: \"30\"", 30.0),
    row("a parameter", 503, "retry-after: 30; comment=\"maintenance\"", 30.0),
    row("two values", 503, "retry-after: 5, 30", 30.0),
    row("two lines, of a proxy and its server", 503, "retry-after: 30\nretry-after: 5", 30.0),
    row("two dates", 503, "retry-after: Wed, 21 Oct 2015 07:28:05 GMT, Wed, 21 Oct 2015 07:28:30 GMT", 30.0),
    row("through a cache", 503, "retry-after: 30\nage: 10", 20.0),
    row("a clock ten seconds slow", 503, "date: Wed, 21 Oct 2015 07:27:50 GMT\nretry-after: Wed, 21 Oct 2015 07:28:20 GMT", 30.0),
    row("that, through a cache", 503, "date: Wed, 21 Oct 2015 07:27:50 GMT\nage: 5\nretry-after: Wed, 21 Oct 2015 07:28:20 GMT", 25.0),
    nothing("an empty value", 503, "retry-after: "),
    nothing("a word", 503, "retry-after: soon"),
    nothing("a negative number", 503, "retry-after: -5"),
    nothing("a date without a zone", 503, "retry-after: 2015-10-21T07:29:00"),

    // Its relatives.
    row("OpenAI", 429, "retry-after-ms: 1500\nretry-after: 2", 1.5),
    row("Azure OpenAI", 429, "retry-after: 6\nretry-after-ms: 5842\nx-ratelimit-reset-requests: 6", 5.842),
    row("Azure Cosmos DB", 429, "x-ms-retry-after-ms: 250", 0.25),
    row("AWS SDK services", 503, "x-amz-retry-after: 3000", 3.0),
    row("Docker Hub", 429, "x-retry-after: 1445412540\nx-ratelimit-remaining: 0", 60.0),
    row("Traefik", 429, "retry-after: 1\nx-retry-in: 1.25s", 1.25),
    row("Traefik, older", 429, "x-retry-in: 523.4ms", 0.5234),
    row("Bucket4j", 429, "x-rate-limit-retry-after-seconds: 23", 23.0),
    row("Symfony", 429, "x-ratelimit-remaining: 0\nx-ratelimit-retry-after: 1445412490", 10.0),
    row("MailerLite", 429, "x-ratelimit-remaining: 0\nx-ratelimit-reset: 2015-10-21 07:29:00\nx-ratelimit-retry-after: 59", 59.0),
    row("Perforce", 429, "retryafter: 17\nx-ratelimit-limit: 30", 17.0),
    row("gRPC over HTTP", 503, "grpc-retry-pushback-ms: 2500", 2.5),
    row("Atlassian, trial headers", 429, "beta-retry-after: 40", 40.0),

    // X-RateLimit-Reset: an epoch.
    row("GitHub", 403, "x-ratelimit-limit: 5000\nx-ratelimit-remaining: 0\nx-ratelimit-used: 5000\nx-ratelimit-reset: 1445412540\nx-ratelimit-resource: core", 60.0),
    row("GitHub, secondary limit", 403, "retry-after: 60\nx-ratelimit-remaining: 4987\nx-ratelimit-reset: 1445415000", 60.0),
    row("GitHub, on a 429", 429, "x-ratelimit-remaining: 0\nx-ratelimit-reset: 1445412540", 60.0),
    nothing("GitHub, no permission", 403, "x-ratelimit-remaining: 4987\nx-ratelimit-reset: 1445415000"),
    row("X", 429, "x-rate-limit-limit: 900\nx-rate-limit-remaining: 0\nx-rate-limit-reset: 1445413000", 520.0),
    row("Okta", 429, "x-rate-limit-limit: 600\nx-rate-limit-remaining: 0\nx-rate-limit-reset: 1445412500", 20.0),
    row("Auth0", 429, "x-ratelimit-limit: 10\nx-ratelimit-remaining: 0\nx-ratelimit-reset: 1445412482", 2.0),
    row("Intercom", 429, "x-ratelimit-limit: 83\nx-ratelimit-remaining: 0\nx-ratelimit-reset: 1445412490", 10.0),
    row("SendGrid", 429, "x-ratelimit-limit: 500\nx-ratelimit-remaining: 0\nx-ratelimit-reset: 1445412500", 20.0),
    row("ClickUp", 429, "x-ratelimit-remaining: 0\nx-ratelimit-reset: 1445412525", 45.0),
    row("Smartsheet", 429, "x-ratelimit-limit: 120\nx-ratelimit-remaining: 0\nx-ratelimit-reset: 1445412510", 30.0),
    row("Alpaca", 429, "x-ratelimit-remaining: 0\nx-ratelimit-reset: 1445412481", 1.0),
    row("Vercel", 429, "x-ratelimit-limit: 100\nx-ratelimit-remaining: 0\nx-ratelimit-reset: 1445412540", 60.0),
    row("Laravel", 429, "retry-after: 58\nx-ratelimit-limit: 60\nx-ratelimit-remaining: 0\nx-ratelimit-reset: 1445412538", 58.0),
    row("Flask-Limiter", 429, "x-ratelimit-remaining: 0\nx-ratelimit-reset: 1445412499\nretry-after: 19", 19.0),
    row("slowapi", 429, "x-ratelimit-limit: 5\nx-ratelimit-remaining: 0\nx-ratelimit-reset: 1445412499.75", 19.75),
    row("express-rate-limit, older", 429, "x-ratelimit-limit: 100\nx-ratelimit-remaining: 0\nx-ratelimit-reset: 1445412780", 300.0),
    row("Syntage", 429, "date: Wed, 21 Oct 2015 07:28:00 GMT\nx-ratelimit-limit: 60\nx-ratelimit-remaining: 0\nx-ratelimit-reset: 1445412483", 3.0),
    row("turn.io", 429, "retry-after: 1\nx-ratelimit-bucket: general\nx-ratelimit-remaining: 21\nx-ratelimit-reset: 1445412485", 1.0),
    row("Zep", 429, "x-ratelimit-remaining: 0\nx-ratelimit-increment: 1\nx-ratelimit-reset: 1445412500", 20.0),
    row("Vantage", 429, "x-rate-limit-limit: 20\nx-rate-limit-remaining: 0\nx-rate-limit-reset: 1445412490", 10.0),
    row("Connecteam", 429, "x-ratelimit-minute-remaining: 0\nx-ratelimit-minute-reset: 1445412500\nx-ratelimit-day-remaining: 70\nx-ratelimit-day-reset: 1445440000", 20.0),
    row("BitMEX", 429, "x-ratelimit-limit: 60\nx-ratelimit-remaining: 0\nx-ratelimit-reset: 1445412481\nretry-after: 1", 1.0),
    row("Imgur", 429, "x-ratelimit-userlimit: 500\nx-ratelimit-userremaining: 0\nx-ratelimit-userreset: 1445412580\nx-ratelimit-clientremaining: 12000", 100.0),
    row("Fastly", 429, "fastly-ratelimit-remaining: 0\nfastly-ratelimit-reset: 1445412540", 60.0),

    // In milliseconds.
    row("Mailgun", 429, "x-ratelimit-limit: 100\nx-ratelimit-remaining: 0\nx-ratelimit-reset: 1445412490500", 10.5),
    row("OpenRouter", 429, "x-ratelimit-limit: 20\nx-ratelimit-remaining: 0\nx-ratelimit-reset: 1445412540000", 60.0),
    row("Linear", 429, "x-ratelimit-requests-limit: 1500\nx-ratelimit-requests-remaining: 0\nx-ratelimit-requests-reset: 1445412600000", 120.0),
    row("Linear, complexity", 429, "x-ratelimit-requests-remaining: 900\nx-ratelimit-requests-reset: 1445416000000\nx-ratelimit-complexity-remaining: 0\nx-ratelimit-complexity-reset: 1445412540000", 60.0),
    row("Bybit", 429, "x-bapi-limit: 100\nx-bapi-limit-status: 0\nx-bapi-limit-reset-timestamp: 1445412481000", 1.0),
    row("Gate.io", 429, "x-gate-ratelimit-requests-remain: 0\nx-gate-ratelimit-limit: 200\nx-gate-ratelimit-reset-timestamp: 1445412490", 10.0),
    row("KuCoin", 429, "gw-ratelimit-limit: 4000\ngw-ratelimit-remaining: 0\ngw-ratelimit-reset: 24300", 24.3),

    // A delta.
    row("Datadog", 429, "x-ratelimit-limit: 300\nx-ratelimit-period: 60\nx-ratelimit-remaining: 0\nx-ratelimit-reset: 22", 22.0),
    row("Reddit", 429, "x-ratelimit-used: 100\nx-ratelimit-remaining: 0.0\nx-ratelimit-reset: 234", 234.0),
    row("Pipedrive", 429, "x-ratelimit-limit: 80\nx-ratelimit-remaining: 0\nx-ratelimit-reset: 2", 2.0),
    row("Unipile", 429, "x-ratelimit-limit: 50\nx-ratelimit-remaining: 0\nx-ratelimit-reset: 24\nretry-after: 24", 24.0),
    row("WHOOP", 429, "x-ratelimit-limit: 100, 100;window=60, 10000;window=86400\nx-ratelimit-remaining: 0\nx-ratelimit-reset: 3", 3.0),
    row("Roblox", 429, "x-ratelimit-limit: 100, 100;w=60\nx-ratelimit-remaining: 0\nx-ratelimit-reset: 22", 22.0),
    row("Envoy", 429, "x-envoy-ratelimited: true\nx-ratelimit-limit: 10, 10;w=1;name=\"tenant\"\nx-ratelimit-remaining: 0\nx-ratelimit-reset: 1", 1.0),
    row("Envoy, with Retry-After", 429, "x-envoy-ratelimited: true\nretry-after: 4", 4.0),
    row("Discord", 429, "retry-after: 65\nx-ratelimit-limit: 10\nx-ratelimit-remaining: 0\nx-ratelimit-reset: 1445412544.57\nx-ratelimit-reset-after: 64.57\nx-ratelimit-bucket: abcd1234", 65.0),
    row("Discord, without Retry-After", 429, "x-ratelimit-remaining: 0\nx-ratelimit-reset: 1445412544.57\nx-ratelimit-reset-after: 64.57", 64.57),
    row("tower-governor", 429, "x-ratelimit-limit: 5\nx-ratelimit-remaining: 0\nx-ratelimit-after: 5", 5.0),
    row("Brevo", 429, "x-sib-ratelimit-limit: 400\nx-sib-ratelimit-remaining: 0\nx-sib-ratelimit-reset: 3", 3.0),
    row("Contentful", 429, "x-contentful-ratelimit-second-limit: 10\nx-contentful-ratelimit-second-remaining: 0\nx-contentful-ratelimit-reset: 1", 1.0),
    row("Genesys", 429, "inin-ratelimit-count: 301\ninin-ratelimit-allowed: 300\ninin-ratelimit-reset: 28", 28.0),
    row("Spring Cloud Gateway", 429, "x-ratelimit-remaining: -1\nx-ratelimit-reset: 1", 1.0),

    // A date.
    row("Atlassian", 429, "x-ratelimit-remaining: 0\nx-ratelimit-reset: 2015-10-21T07:29Z\nratelimit-reason: jira-burst-based", 60.0),
    row("Atlassian, with Retry-After", 429, "retry-after: 8\nx-ratelimit-reset: 2015-10-21T07:29Z", 8.0),
    row("Vimeo", 429, "x-ratelimit-limit: 250\nx-ratelimit-remaining: 0\nx-ratelimit-reset: 2015-10-21T07:29:00+00:00", 60.0),
    row("Akamai", 429, "x-ratelimit-limit: 60\nx-ratelimit-remaining: 0\nx-ratelimit-next: 2015-10-21T07:28:05.000Z", 5.0),
    row("Akamai, adaptive media", 429, "akamai-ratelimit-limit: 100\nakamai-ratelimit-remaining: 0\nakamai-ratelimit-next: 2015-10-21T07:28:05Z", 5.0),
    row("AspNetCoreRateLimit", 429, "x-rate-limit-limit: 1m\nx-rate-limit-remaining: 0\nx-rate-limit-reset: 2015-10-21T07:28:30.1234567Z", 30.123_456_7),
    row("go-limiter", 429, "x-ratelimit-limit: 15\nx-ratelimit-remaining: 0\nx-ratelimit-reset: Wed, 21 Oct 2015 07:28:12 UTC", 12.0),
    row("lemlist", 429, "x-ratelimit-limit: 20\nx-ratelimit-remaining: 0\nx-ratelimit-reset: Wed Oct 21 2015 09:28:02 GMT+0200 (Central European Summer Time)", 2.0),
    row("lemlist, with Retry-After", 429, "retry-after: 2\nx-ratelimit-remaining: 7\nx-ratelimit-reset: Wed Oct 21 2015 09:28:02 GMT+0200 (Central European Summer Time)", 2.0),
    row("Yelp", 429, "ratelimit-dailylimit: 500\nratelimit-remaining: 0\nratelimit-resettime: 2015-10-21T08:00:00+00:00", 1920.0),

    // RateLimit-*, without X.
    row("GitLab", 429, "ratelimit-limit: 60\nratelimit-remaining: 0\nratelimit-reset: 1445412540\nratelimit-resettime: Wed, 21 Oct 2015 07:29:00 GMT\nretry-after: 60", 60.0),
    row("GitLab, without Retry-After", 429, "ratelimit-remaining: 0\nratelimit-reset: 1445412540\nratelimit-resettime: Wed, 21 Oct 2015 07:29:00 GMT", 60.0),
    row("Twitch", 429, "ratelimit-limit: 800\nratelimit-remaining: 0\nratelimit-reset: 1445412482", 2.0),
    row("DigitalOcean", 429, "ratelimit-limit: 5000\nratelimit-remaining: 0\nratelimit-reset: 1445412539", 59.0),
    row("PagerDuty", 429, "ratelimit-limit: 960\nratelimit-remaining: 0\nratelimit-reset: 24", 24.0),
    row("Persona", 429, "ratelimit-limit: 300\nratelimit-remaining: 0\nratelimit-reset: 53", 53.0),
    row("Botpress", 429, "ratelimit-limit: 100\nratelimit-remaining: 0\nratelimit-reset: 12", 12.0),
    row("Replicate", 429, "ratelimit-remaining: 0\nratelimit-reset: 13", 13.0),
    row("agent.ai", 429, "ratelimit-limit: 1000\nratelimit-remaining: 0\nratelimit-reset-date: 2015-10-21T07:28:30.000Z", 30.0),
    row("Kong", 429, "ratelimit-limit: 6\nratelimit-remaining: 0\nratelimit-reset: 47\nretry-after: 47\nx-ratelimit-remaining-minute: 0", 47.0),
    row("Mistral", 429, "ratelimitbysize-limit: 500000\nratelimitbysize-remaining: 0\nratelimitbysize-reset: 48", 48.0),
    row("a draft with windows", 429, "ratelimit-limit: 100;w=60\nratelimit-remaining: 0;w=60\nratelimit-reset: 30;w=60", 30.0),
    nothing("Docker Hub, pulls", 429, "ratelimit-limit: 100;w=21600\nratelimit-remaining: 0;w=21600\ndocker-ratelimit-source: 203.0.113.7"),

    // The structured field.
    row("Cloudflare", 429, "ratelimit: \"default\";r=0;t=11\nratelimit-policy: \"default\";q=1200;w=300", 11.0),
    row("Hugging Face", 429, "ratelimit: \"api\";r=0;t=123\nratelimit-policy: \"fixed window\";\"api\";q=500;w=300", 123.0),
    row("express-rate-limit, draft 7", 429, "ratelimit: limit=100, remaining=0, reset=30\nratelimit-policy: 100;w=60", 30.0),
    row("express-rate-limit, draft 8", 429, "ratelimit: \"100-in-1min\"; r=0; t=44", 44.0),
    row("two quotas", 429, "ratelimit: \"burst\";r=0;t=5, \"daily\";r=0;t=600", 600.0),
    row("one of two quotas", 429, "ratelimit: \"burst\";r=0;t=5, \"daily\";r=900;t=36000", 5.0),
    row("Zendesk", 429, "zendesk-ratelimit-tickets-index: total=100; remaining=0; resets=41", 41.0),
    nothing("a policy alone", 429, "ratelimit-policy: \"burst\";q=100;w=60"),
    nothing("quotas with room, on a 503", 503, "ratelimit: \"burst\";r=5;t=5"),

    // Several quotas beside each other.
    row("OpenAI, tokens", 429, "x-ratelimit-limit-requests: 60\nx-ratelimit-remaining-requests: 59\nx-ratelimit-reset-requests: 1s\nx-ratelimit-remaining-tokens: 0\nx-ratelimit-reset-tokens: 6m0s", 360.0),
    row("OpenAI, fewer tokens than needed", 429, "x-ratelimit-remaining-requests: 59\nx-ratelimit-reset-requests: 1s\nx-ratelimit-remaining-tokens: 150\nx-ratelimit-reset-tokens: 6m0s", 360.0),
    nothing("OpenAI, overloaded", 503, "x-ratelimit-remaining-requests: 59\nx-ratelimit-reset-requests: 1s"),
    row("Groq", 429, "retry-after: 2\nx-ratelimit-remaining-tokens: 0\nx-ratelimit-reset-tokens: 7.66s\nx-ratelimit-reset-requests: 2m59.56s", 2.0),
    row("Groq, without Retry-After", 429, "x-ratelimit-remaining-requests: 14370\nx-ratelimit-reset-requests: 2m59.56s\nx-ratelimit-remaining-tokens: 0\nx-ratelimit-reset-tokens: 7.66s", 7.66),
    row("Cerebras", 429, "x-ratelimit-remaining-requests-day: 900\nx-ratelimit-reset-requests-day: 33011.382867\nx-ratelimit-remaining-tokens-minute: 0\nx-ratelimit-reset-tokens-minute: 11.382867", 11.382_867),
    row("Azure OpenAI, bare seconds", 429, "x-ratelimit-remaining-requests: 0\nx-ratelimit-reset-requests: 10", 10.0),
    row("Anthropic", 429, "anthropic-ratelimit-requests-remaining: 0\nanthropic-ratelimit-requests-reset: 2015-10-21T07:28:20Z\nanthropic-ratelimit-tokens-remaining: 5000\nanthropic-ratelimit-tokens-reset: 2015-10-21T07:29:00Z", 20.0),
    row("Anthropic, with Retry-After", 429, "retry-after: 17\nanthropic-ratelimit-output-tokens-remaining: 0\nanthropic-ratelimit-output-tokens-reset: 2015-10-21T07:28:20Z", 17.0),
    row("Anthropic, overloaded", 529, "retry-after: 12\nx-should-retry: true", 12.0),
    row("Anthropic, input tokens", 429, "anthropic-ratelimit-input-tokens-remaining: 0\nanthropic-ratelimit-input-tokens-reset: 2015-10-21T07:28:40Z", 40.0),

    // On a 429 alone.
    row("a reset alone", 429, "x-ratelimit-reset: 30", 30.0),
    row("a reset beside what remains", 429, "x-ratelimit-remaining: 3\nx-ratelimit-reset: 30", 30.0),
    row("a quota that has room", 429, "ratelimit: \"burst\";r=1;t=9", 9.0),
    nothing("the same on a 503", 503, "x-ratelimit-remaining: 3\nx-ratelimit-reset: 30"),
    nothing("no header", 429, "x-ratelimit-limit: 100"),

    // Other statuses.
    row("nginx behind a CDN", 530, "retry-after: 30", 30.0),
    row("an upload too large for now", 413, "retry-after: 60", 60.0),
    row("maintenance", 500, "retry-after: 15", 15.0),
    row("a gateway", 502, "retry-after: 3", 3.0),
    row("Stripe", 429, "stripe-should-retry: true\nretry-after: 1", 1.0),
];
