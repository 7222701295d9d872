//! Replays the behaviour of the Python library that this crate follows, as it was observed there.
//!
//! `tests/conformance/SCHEMA.md` describes the corpus. Another one of the same schema is replayed
//! where `RESILIENT_CORPUS` names it. Fields that are flagged as hazards there are not matched;
//! `hazards` asserts what is better instead. What the types of `schema` do not understand fails.

mod breaker;
mod compare;
mod errors;
mod hazards;
mod replay;
mod schema;
mod settings;
mod tables;

use std::{env, fs};

use replay::Without;
use schema::{Corpus, Scenario};

/// The result of one case.
#[derive(Default)]
struct Checked {
    differences: Vec<String>,
    /// Where more was expected than the reference does.
    amendments: Vec<String>,
}

impl Checked {
    fn with(differences: Vec<String>) -> Self {
        Self { differences, ..Self::default() }
    }
}

#[test]
fn the_reference_s_behaviour_is_kept_or_bettered() {
    let corpus = corpus();
    let cases = (corpus.scenarios.iter().map(|it| (&it.id, scenario(it, &corpus))))
        .chain(corpus.backoff_cases.iter().map(|it| (&it.id, tables::backoff(it))))
        .chain(corpus.retry_after_cases.iter().map(|it| (&it.id, tables::retry_after(it))))
        .chain(corpus.validation_cases.iter().map(|it| (&it.id, tables::validation(it))))
        .chain(corpus.breaker_cases.iter().map(|it| (&it.id, breaker::operations(it))));

    let (mut compared, mut differed) = (0, 0);
    for (id, Checked { differences, amendments }) in cases {
        compared += 1;
        differed += usize::from(!differences.is_empty());
        amendments.iter().for_each(|it| println!("amended {id}: {it}"));
        differences.iter().for_each(|it| println!("DIFFERS {id}: {it}"));
    }
    // The replayer fails on cases that it does not understand, so none is left out.
    println!("conformance: compared {compared}, differed {differed}, left out 0");
    assert_eq!(differed, 0, "the differences are listed above");
}

fn corpus() -> Corpus {
    let own = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/conformance/aresilient.json");
    let path = env::var("RESILIENT_CORPUS").unwrap_or_else(|_| own.to_owned());
    let text = fs::read_to_string(&path).unwrap_or_else(|it| panic!("{path}: {it}"));
    serde_json::from_str(&text).unwrap_or_else(|it| panic!("{path}: {it}"))
}

/// Replays one scenario, compares what is not hazardous, and asserts what is better of the rest.
fn scenario(scenario: &Scenario, corpus: &Corpus) -> Checked {
    let mut differences = vec![];
    let mut amendments = vec![];
    if scenario.hazard == scenario.hazard_ids.is_empty() {
        differences.push("is a hazard without a name, or has a name without being one".to_owned());
    }
    let plays = match replay::replay(scenario, Without::default()) {
        Ok(plays) => plays,
        Err(refused) => return Checked::with(hazards::refused(scenario, &refused)),
    };
    for (request, observed) in &plays {
        let compared = compare::compare(scenario, request, observed);
        differences.extend(compared.differences);
        amendments.extend(compared.amendment);
        for id in &scenario.hazard_ids {
            assert!(corpus.hazards.contains_key(id), "the corpus does not describe {id}");
            differences.extend(hazards::check(id, scenario, request, observed));
        }
    }
    Checked { differences, amendments }
}
