//! A token bucket that fills by successes, and by time.

use crate::common::clock::{Instant, nanos};
use crate::retry::budget::BudgetConfig;

/// One token, counted so finely that a billionth of a token per second is exact to the nanosecond.
///
/// Counting in integers makes four deposits of 0.25 worth a retry, and ten of 0.1 as well.
const TOKEN: u128 = BILLION * BILLION;

const BILLION: u128 = 1_000_000_000;

/// A token bucket that fills by deposits, and by time as of when it is asked.
#[derive(Clone, Debug)]
pub(super) struct Bucket {
    /// Never above `size`.
    balance: u128,
    size: u128,
    deposit: u128,
    /// For each nanosecond.
    trickle: u64,
    /// For each nanosecond, of what is more than a token.
    upkeep: u64,
    /// From here on, moments are numbers of nanoseconds.
    epoch: Instant,
    /// Until when the trickle is in the balance; never goes back.
    filled: u64,
    /// When the last success was.
    succeeded: Option<u64>,
}

impl Bucket {
    /// A full bucket.
    pub(super) fn new(config: &BudgetConfig, now: Instant) -> Self {
        // A float cast saturates, and takes what is not a number for 0.
        let billionths = |rate: f64| (rate * BILLION as f64).round() as u64;
        let size = u128::from(config.size) * TOKEN;
        Self {
            balance: size,
            size,
            deposit: u128::from(billionths(config.deposit)) * BILLION,
            trickle: billionths(config.trickle),
            upkeep: billionths(config.upkeep),
            epoch: now,
            filled: 0,
            succeeded: None,
        }
    }

    /// Goes on under other rules with what has come in so far.
    pub(super) fn change_rules(&mut self, config: &BudgetConfig, now: Instant) {
        self.fill(self.moment(now));
        let Self { size, deposit, trickle, upkeep, .. } = Self::new(config, now);
        self.balance = self.balance.min(size);
        (self.size, self.deposit, self.trickle, self.upkeep) = (size, deposit, trickle, upkeep);
    }

    /// Adds what a successful request pays for, after what it costs to have kept the rest.
    pub(super) fn deposit(&mut self, now: Instant) {
        let now = self.moment(now);
        self.fill(now);
        let idle = self.succeeded.map_or(0, |it| now.saturating_sub(it));
        self.succeeded = self.succeeded.max(Some(now));
        let spare = self.balance.saturating_sub(TOKEN);
        self.balance -= spare.min(over(idle, self.upkeep));
        self.add(self.deposit);
    }

    /// For so many nanoseconds less one after a success, another one changes nothing but when the
    /// last one was: it pays for itself, and the bucket stays full.
    pub(super) fn calm(&self) -> u64 {
        match self.deposit.checked_div(self.upkeep.into()) {
            _ if self.balance < self.size => 0,
            Some(paid_for) => u64::try_from(paid_for).unwrap_or(u64::MAX).saturating_add(1),
            None => u64::MAX,
        }
    }

    /// When the last success was, in nanoseconds from when the bucket was new.
    pub(super) fn last_success(&self) -> Option<u64> {
        self.succeeded
    }

    /// There was a success that changed nothing else.
    pub(super) fn has_succeeded(&mut self, at: u64) {
        self.succeeded = self.succeeded.max(Some(at));
    }

    /// Takes a token for a retry, unless there is none.
    #[must_use]
    pub(super) fn withdraw(&mut self, now: Instant) -> bool {
        self.fill(self.moment(now));
        match self.balance.checked_sub(TOKEN) {
            Some(rest) => {
                self.balance = rest;
                true
            }
            None => false,
        }
    }

    /// Puts back the token of a retry that was never sent.
    pub(super) fn refund(&mut self) {
        self.add(TOKEN);
    }

    /// The tokens there are.
    pub(super) fn balance(&self, now: Instant) -> f64 {
        let balance = self.balance.saturating_add(self.trickled(self.moment(now))).min(self.size);
        // Apart, since a float has no room for a full bucket of billionths.
        (balance / TOKEN) as f64 + (balance % TOKEN) as f64 / TOKEN as f64
    }

    fn moment(&self, now: Instant) -> u64 {
        nanos(now.saturating_duration_since(self.epoch))
    }

    fn trickled(&self, now: u64) -> u128 {
        over(now.saturating_sub(self.filled), self.trickle)
    }

    /// Adds what has trickled in.
    fn fill(&mut self, now: u64) {
        self.add(self.trickled(now));
        self.filled = self.filled.max(now);
    }

    fn add(&mut self, amount: u128) {
        self.balance = self.balance.saturating_add(amount).min(self.size);
    }
}

/// What comes to `rate` a nanosecond in so many of them.
fn over(nanos: u64, rate: u64) -> u128 {
    u128::from(nanos) * u128::from(rate)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::{num::f64::ANY, prelude::*};

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn withdrawals(bucket: &mut Bucket, now: Instant) -> u32 {
        (0..1000).filter(|_| bucket.withdraw(now)).count() as u32
    }

    #[test]
    fn starts_full() {
        let now = Instant::now();
        let mut bucket = Bucket::new(&BudgetConfig::default(), now);
        assert_eq!(withdrawals(&mut bucket, now), 3);
    }

    #[test]
    fn fractions_are_exact() {
        let now = Instant::now();
        for (deposit, successes, retries) in
            [(0.1, 10, 1), (0.4, 5, 2), (0.7, 10, 7), (0.001, 1000, 1), (0.3, 9, 2)]
        {
            let config = BudgetConfig::default().size(10).deposit(deposit).trickle(0.0);
            let mut bucket = Bucket::new(&config, now);
            assert_eq!(withdrawals(&mut bucket, now), 10);
            (0..successes).for_each(|_| bucket.deposit(now));
            assert_eq!(withdrawals(&mut bucket, now), retries, "{successes} of {deposit}");
        }
    }

    #[test]
    fn trickles_however_often_it_is_asked() {
        let start = Instant::now();
        let mut bucket = Bucket::new(&BudgetConfig::default().trickle(0.05), start);
        assert_eq!(withdrawals(&mut bucket, start), 3);
        for i in 1..20_000 {
            assert!(!bucket.withdraw(start + i * SECOND / 1000), "{i} ms");
        }
        assert!(bucket.withdraw(start + 20 * SECOND));
        assert_eq!(bucket.balance(start + 30 * SECOND), 0.5);
    }

    #[test]
    fn holds_no_more_than_its_size() {
        let start = Instant::now();
        let mut bucket = Bucket::new(&BudgetConfig::default(), start);
        (0..100).for_each(|_| bucket.deposit(start));
        bucket.refund();
        assert_eq!(bucket.balance(start + 3600 * SECOND), 3.0);
        assert_eq!(withdrawals(&mut bucket, start + 3600 * SECOND), 3);
        bucket.refund();
        assert_eq!(withdrawals(&mut bucket, start), 1);
    }

    #[test]
    fn a_slow_client_keeps_one_retry() {
        let start = Instant::now();
        let mut bucket = Bucket::new(&BudgetConfig::default().trickle(0.0), start);
        let after = |bucket: &mut Bucket, secs| {
            bucket.deposit(start + secs * SECOND);
            (bucket.balance(start) * 1e3).round()
        };
        // The first success has nothing before it to pay for.
        assert_eq!(after(&mut bucket, 100), 3000.0);
        assert_eq!(
            [105, 110, 115, 120].map(|at| after(&mut bucket, at)),
            [2100.0, 1200.0, 1100.0, 1100.0]
        );
        // A clock that goes back has nothing to pay for either, and is not forgotten.
        assert_eq!([110, 120].map(|at| after(&mut bucket, at)), [1200.0, 1300.0]);
    }

    #[test]
    fn a_busy_client_keeps_all_and_so_does_one_that_waits() {
        let start = Instant::now();
        let mut bucket = Bucket::new(&BudgetConfig::default().trickle(0.0), start);
        let at = |i: u32| start + i * SECOND / 2;
        (0..100).for_each(|i| bucket.deposit(at(i)));
        assert_eq!(bucket.balance(at(100)), 3.0);
        assert_eq!(withdrawals(&mut bucket, at(100_000)), 3);
        (0..10).for_each(|_| bucket.deposit(at(100_000)));
        bucket.deposit(at(200_000));
        assert_eq!(bucket.balance(at(200_000)), 1.1, "what is down to one retry costs nothing");
    }

    #[test]
    fn without_upkeep_what_is_saved_stays() {
        let start = Instant::now();
        let config = BudgetConfig::default().upkeep(0.0).deposit(0.0);
        let mut bucket = Bucket::new(&config, start);
        (0..10).for_each(|hour| bucket.deposit(start + 3600 * hour * SECOND));
        assert_eq!(bucket.balance(start), 3.0);
    }

    #[test]
    fn other_rules_go_on_with_what_has_come_in() {
        let start = Instant::now();
        let rules = BudgetConfig::default().size(10).deposit(0.5).trickle(1.0).upkeep(0.0);
        let mut bucket = Bucket::new(&rules, start);
        assert_eq!(withdrawals(&mut bucket, start), 10);

        let later = start + 6 * SECOND;
        bucket.change_rules(&rules.deposit(0.25).trickle(0.0).upkeep(1.0), later);
        assert_eq!(bucket.balance(later + 9 * SECOND), 6.0);
        bucket.deposit(later);
        assert_eq!(bucket.balance(later), 6.25);
        bucket.deposit(later + SECOND);
        assert_eq!(bucket.balance(later), 5.5);

        bucket.change_rules(&rules.size(3), later + SECOND);
        assert_eq!(bucket.balance(later + 9 * SECOND), 3.0);
        assert_eq!(withdrawals(&mut bucket, later + SECOND), 3);
    }

    #[derive(Clone, Copy, Debug)]
    enum Step {
        Success,
        Retry,
        Refund,
        Forward(u32),
        Back(u32),
    }

    fn any_step() -> impl Strategy<Value = Step> {
        prop_oneof![
            Just(Step::Success),
            Just(Step::Retry),
            Just(Step::Refund),
            (0..5_000_u32).prop_map(Step::Forward),
            (0..5_000_u32).prop_map(Step::Back),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2048))]

        #[test]
        fn retries_are_paid_for(
            size in 1..20_u32,
            deposit in 0..=1000_u32,
            trickle in 0..=1000_u32,
            upkeep in 0..=1000_u32,
            steps in proptest::collection::vec(any_step(), 0..200),
        ) {
            let (deposit, trickle) = (f64::from(deposit) / 1000.0, f64::from(trickle) / 1000.0);
            let config = BudgetConfig::default().size(size).deposit(deposit).trickle(trickle);
            let config = config.upkeep(f64::from(upkeep) / 1000.0);
            let start = Instant::now() + 3600 * SECOND;
            let mut bucket = Bucket::new(&config, start);
            let (mut now, mut latest) = (start, start);
            let (mut successes, mut sent) = (0, 0);
            for step in steps {
                match step {
                    Step::Success => {
                        bucket.deposit(now);
                        successes += 1;
                    }
                    Step::Retry => sent += i32::from(bucket.withdraw(now)),
                    Step::Refund if sent > 0 => {
                        bucket.refund();
                        sent -= 1;
                    }
                    Step::Refund => {}
                    Step::Forward(millis) => now += Duration::from_millis(millis.into()),
                    Step::Back(millis) => now -= Duration::from_millis(millis.into()),
                }
                latest = latest.max(now);
                let balance = bucket.balance(now);
                prop_assert!((0.0..=f64::from(size)).contains(&balance));
                let paid = f64::from(size)
                    + deposit * f64::from(successes)
                    + trickle * (latest - start).as_secs_f64();
                prop_assert!(f64::from(sent) <= paid + 1e-9, "{sent} retries, {paid} paid for");
            }
        }

        #[test]
        fn no_setting_breaks_the_bucket(
            size: u32,
            deposit in ANY,
            trickle in ANY,
            upkeep in ANY,
            secs: u32,
        ) {
            let config = BudgetConfig::default().size(size).deposit(deposit).trickle(trickle);
            let config = config.upkeep(upkeep);
            let start = Instant::now();
            let mut bucket = Bucket::new(&config, start);
            for _ in 0..3 {
                bucket.deposit(start);
                let _ = bucket.withdraw(start + Duration::from_secs(secs.into()));
                bucket.refund();
            }
            prop_assert!(bucket.balance(start) <= f64::from(size));
        }
    }
}
