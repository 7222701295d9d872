//! The settings of hedges.

use super::{TIME, hedge};
use crate::config::file::shape::{Key, Kind};
use crate::config::file::value::Value;

pub(super) const HEDGE: &[Key] = &[
    hedge(
        "quantile",
        Kind::Number { min: 0.5, max: 0.999 },
        "Sends one once an attempt is slower than this quantile of the latest ones. Default: 0.95.",
        |it, value| it.with_quantile(value.number()),
    ),
    hedge(
        "or_after",
        TIME,
        "The delay until the quantile is known. Default: none, no hedges until then.",
        |it, value| it.or_after(value.time().unwrap_or_default()),
    ),
    hedge("after", TIME, "Sends one after this time, in place of a quantile.", |it, value| {
        it.fixed_to(value.time().unwrap_or_default())
    }),
    hedge(
        "max_hedges",
        Kind::Whole { min: 1, max: 4 },
        "The most hedges of one attempt. Default: 1.",
        |it, value| it.max_hedges(value.count()),
    ),
    hedge(
        "share",
        Kind::Number { min: 0.000_001, max: 1.0 },
        "The hedges per request, on average. Default: 1.2 times the share of requests above the \
         quantile.",
        |it, value| it.share(value.number()),
    ),
    hedge(
        "methods",
        Kind::List(&Kind::Method),
        "The methods that are hedged. Default: GET, HEAD, OPTIONS, QUERY.",
        |it, value| it.methods(value.items().iter().filter_map(Value::method)),
    ),
    hedge(
        "until",
        Kind::Word(&["head", "first_byte"]),
        "What ends the race: the response head, or the first byte of the body, for servers that \
         compute after the head. Default: head.",
        |it, value| it.with_first_byte(*value == Value::Word("first_byte")),
    ),
];
