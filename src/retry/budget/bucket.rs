//! A token bucket that successes and time fill.

use std::mem;

use crate::common::clock::{Instant, nanos};
use crate::retry::budget::BudgetConfig;

/// One token in units so small that a billionth of a token per second is exact to the nanosecond.
///
/// Counting in integers makes four deposits of 0.25 worth a retry, and ten of 0.1 as well.
const TOKEN: i128 = BILLION * BILLION;

const BILLION: i128 = 1_000_000_000;

/// The tokens that a retry after a timeout costs beside the one that each retry costs.
///
/// In the storm's simulation of 500 clients and a host with two routes at a load of 0.7, one of which
/// stalls for 10 s, both are back after 30 s with four, 40 s with two and 84 s with none.
const TIMEOUT_COST: usize = 4;

/// The retries denied in a row after which a success tells that the host is back, and brings a token.
///
/// Retries that wait are then sent, and bring more if they work. At ten requests a second an outage
/// of 2 s so costs two requests; without it 20, and 10 with plain retries.
const BACK_AFTER: u32 = 5;

/// A token bucket that deposits fill, and time, up to the moment of each call.
#[derive(Clone, Debug)]
pub(super) struct Bucket {
    /// Never above `size`; below zero only by overdrafts.
    balance: i128,
    size: i128,
    deposit: i128,
    retry_deposit: i128,
    /// Units per nanosecond.
    trickle: u64,
    /// The moment from which nanoseconds are counted.
    epoch: Instant,
    /// The moment up to which the trickle is in the balance; never decreases.
    filled: u64,
    /// The withdrawals denied since the last success.
    denied: u32,
}

/// The kinds of success that make a deposit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Success {
    OfFirstAttempt,
    OfRetry,
}

impl Bucket {
    /// Creates a full bucket.
    pub(super) fn new(config: &BudgetConfig, now: Instant) -> Self {
        // A float cast saturates, and makes 0 of NaN.
        let billionths = |rate: f64| (rate * BILLION as f64).round() as u64;
        let tokens = |rate: f64| i128::from(billionths(rate)) * BILLION;
        let size = i128::from(config.size) * TOKEN;
        Self {
            balance: size,
            size,
            deposit: tokens(config.deposit),
            retry_deposit: tokens(config.retry_deposit),
            trickle: billionths(config.trickle),
            epoch: now,
            filled: 0,
            denied: 0,
        }
    }

    /// Changes the rules from now on; keeps the trickle so far.
    pub(super) fn change_rules(&mut self, config: &BudgetConfig, now: Instant) {
        self.fill(now);
        let new = Self::new(config, now);
        let balance = self.balance.min(new.size);
        // The denials, too: a reload in an outage must not hide that the host is back.
        let Self { epoch, filled, denied, .. } = *self;
        *self = Self { balance, epoch, filled, denied, ..new };
    }

    /// Adds the deposit of a success: at least a token if it is the first after many denials.
    pub(super) fn deposit(&mut self, success: Success) {
        let is_back = mem::take(&mut self.denied) >= BACK_AFTER;
        self.add(match success {
            Success::OfFirstAttempt if is_back => self.deposit.max(TOKEN),
            Success::OfFirstAttempt => self.deposit,
            Success::OfRetry => self.retry_deposit,
        });
    }

    pub(super) fn is_full(&self) -> bool {
        self.balance >= self.size
    }

    /// Takes a token for a retry, unless the balance would fall more than `overdraft` below zero.
    #[must_use]
    pub(super) fn withdraw(&mut self, now: Instant, overdraft: u32) -> bool {
        self.fill(now);
        let rest = self.balance - TOKEN;
        let covered = rest >= -i128::from(overdraft) * TOKEN;
        if covered {
            self.balance = rest;
        } else {
            self.denied = self.denied.saturating_add(1);
        }
        covered
    }

    /// Takes what a retry after a timeout costs beside its token, but leaves that one.
    pub(super) fn charge_timeout(&mut self, now: Instant) {
        self.fill(now);
        self.take(self.tokens().saturating_sub(1).min(TIMEOUT_COST));
    }

    /// Returns the number of whole tokens.
    pub(super) fn tokens(&self) -> usize {
        usize::try_from(self.balance / TOKEN).unwrap_or(0)
    }

    /// Takes `tokens`, which the caller has counted before.
    pub(super) fn take(&mut self, tokens: usize) {
        self.balance -= tokens as i128 * TOKEN;
    }

    /// Puts back the token of a retry that was never sent.
    pub(super) fn refund(&mut self) {
        self.add(TOKEN);
    }

    /// Returns the number of tokens; below zero after an overdraft.
    pub(super) fn balance(&self, now: Instant) -> f64 {
        let balance = self.balance.saturating_add(self.trickled(self.moment(now))).min(self.size);
        // In two parts, since a float cannot hold a full bucket of billionths exactly.
        (balance / TOKEN) as f64 + (balance % TOKEN) as f64 / TOKEN as f64
    }

    /// Returns whether less than half of the tokens are there.
    pub(super) fn is_short(&self, now: Instant) -> bool {
        self.balance.saturating_add(self.trickled(self.moment(now))) < self.size / 2
    }

    fn moment(&self, now: Instant) -> u64 {
        nanos(now.saturating_duration_since(self.epoch))
    }

    fn trickled(&self, now: u64) -> i128 {
        i128::from(now.saturating_sub(self.filled)) * i128::from(self.trickle)
    }

    /// Adds what has trickled in until `now`.
    pub(super) fn fill(&mut self, now: Instant) {
        let now = self.moment(now);
        self.add(self.trickled(now));
        self.filled = self.filled.max(now);
    }

    fn add(&mut self, amount: i128) {
        self.balance = self.balance.saturating_add(amount).min(self.size);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::{num::f64::ANY, prelude::*};

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn withdrawals(bucket: &mut Bucket, now: Instant) -> u32 {
        (0..1000).take_while(|_| bucket.withdraw(now, 0)).count() as u32
    }

    #[test]
    fn starts_full() {
        let now = Instant::now();
        let mut bucket = Bucket::new(&BudgetConfig::default(), now);
        assert_eq!(withdrawals(&mut bucket, now), 10);
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
            (0..successes).for_each(|_| bucket.deposit(Success::OfFirstAttempt));
            assert_eq!(withdrawals(&mut bucket, now), retries, "{successes} of {deposit}");
        }
    }

    #[test]
    fn trickles_however_often_it_is_asked() {
        let start = Instant::now();
        let mut bucket = Bucket::new(&BudgetConfig::default().size(3).trickle(0.05), start);
        assert_eq!(withdrawals(&mut bucket, start), 3);
        for i in 1..20_000 {
            assert!(!bucket.withdraw(start + i * SECOND / 1000, 0), "{i} ms");
        }
        assert!(bucket.withdraw(start + 20 * SECOND, 0));
        assert_eq!(bucket.balance(start + 30 * SECOND), 0.5);
    }

    #[test]
    fn holds_no_more_than_its_size() {
        let start = Instant::now();
        let mut bucket = Bucket::new(&BudgetConfig::default().size(3), start);
        (0..100).for_each(|_| bucket.deposit(Success::OfFirstAttempt));
        bucket.refund();
        assert_eq!(bucket.balance(start + 3600 * SECOND), 3.0);
        assert_eq!(withdrawals(&mut bucket, start + 3600 * SECOND), 3);
        bucket.refund();
        assert_eq!(withdrawals(&mut bucket, start), 1);
    }

    #[test]
    fn a_timeout_costs_more_but_never_the_retry_itself() {
        let now = Instant::now();
        for (size, left) in [(10, 6), (5, 1), (4, 1), (1, 1)] {
            let config = BudgetConfig::default().size(size).trickle(0.0);
            let mut bucket = Bucket::new(&config, now);
            bucket.charge_timeout(now);
            assert_eq!(withdrawals(&mut bucket, now), left, "of {size}");
            bucket.charge_timeout(now);
            assert_eq!(bucket.balance(now), 0.0, "of {size}");
        }
        let mut overdrawn = Bucket::new(&BudgetConfig::default().size(1).trickle(0.0), now);
        (0..2).for_each(|_| assert!(overdrawn.withdraw(now, 1)));
        overdrawn.charge_timeout(now);
        assert_eq!(overdrawn.balance(now), -1.0);
    }

    #[test]
    fn the_first_success_after_five_denials_brings_a_token() {
        let now = Instant::now();
        for (denials, tokens) in [(4, 0), (5, 1), (50, 1)] {
            let mut bucket = Bucket::new(&BudgetConfig::default().size(1).trickle(0.0), now);
            (0..=denials).for_each(|_| _ = bucket.withdraw(now, 0));
            (0..2).for_each(|_| bucket.deposit(Success::OfFirstAttempt));
            assert_eq!(bucket.tokens(), tokens, "{denials} denials");
        }
        let mut apart = Bucket::new(&BudgetConfig::default().size(1).trickle(0.0), now);
        for _ in 0..4 {
            (0..4).for_each(|_| _ = apart.withdraw(now, 0));
            apart.deposit(Success::OfFirstAttempt);
        }
        assert_eq!(apart.tokens(), 0, "not in a row");
        let rules = BudgetConfig::default().size(1).trickle(0.0);
        let mut reloaded = Bucket::new(&rules, now);
        (0..6).for_each(|_| _ = reloaded.withdraw(now, 0));
        reloaded.change_rules(&rules.size(2), now);
        reloaded.deposit(Success::OfFirstAttempt);
        assert_eq!(reloaded.tokens(), 1, "other rules in between");
    }

    #[test]
    fn a_retry_that_succeeds_pays_for_three() {
        let now = Instant::now();
        let config = BudgetConfig::default().trickle(0.0);
        let mut bucket = Bucket::new(&config, now);
        assert_eq!(withdrawals(&mut bucket, now), 10);
        bucket.deposit(Success::OfRetry);
        assert_eq!(withdrawals(&mut bucket, now), 3);
        (0..100).for_each(|_| bucket.deposit(Success::OfFirstAttempt));
        assert_eq!(withdrawals(&mut bucket, now), 1);
    }

    #[test]
    fn retries_go_on_while_one_in_three_works() {
        let now = Instant::now();
        for (every, lasts) in [(3, true), (5, false)] {
            let mut bucket = Bucket::new(&BudgetConfig::default().trickle(0.0), now);
            let went_on = (1..=1_000).all(|retry| {
                let paid = bucket.withdraw(now, 0);
                if retry % every == 0 {
                    bucket.deposit(Success::OfRetry);
                }
                paid
            });
            assert_eq!(went_on, lasts, "every {every}");
        }
    }

    #[test]
    fn an_overdraft_is_paid_back_first() {
        let now = Instant::now();
        let mut bucket = Bucket::new(&BudgetConfig::default().size(1).trickle(0.0), now);
        let taken = (0..100).filter(|_| bucket.withdraw(now, 10)).count();
        assert_eq!((taken, bucket.balance(now)), (11, -10.0));
        bucket.deposit(Success::OfRetry);
        assert!(!bucket.withdraw(now, 0) && bucket.withdraw(now, 10));
        (0..4).for_each(|_| bucket.deposit(Success::OfRetry));
        assert_eq!(bucket.balance(now), 1.0);
    }

    #[test]
    fn other_rules_go_on_with_what_has_come_in() {
        let start = Instant::now();
        let rules = BudgetConfig::default().size(10).deposit(0.5).trickle(1.0);
        let mut bucket = Bucket::new(&rules, start);
        assert_eq!(withdrawals(&mut bucket, start), 10);

        let later = start + 6 * SECOND;
        bucket.change_rules(&rules.deposit(0.25).trickle(0.0), later);
        assert_eq!(bucket.balance(later + 9 * SECOND), 6.0);
        bucket.deposit(Success::OfFirstAttempt);
        assert_eq!(bucket.balance(later), 6.25);

        bucket.change_rules(&rules.size(3), later + SECOND);
        assert_eq!(bucket.balance(later + 9 * SECOND), 3.0);
        assert_eq!(withdrawals(&mut bucket, later + SECOND), 3);
    }

    #[test]
    fn other_rules_neither_repeat_nor_delay_the_trickle() {
        let start = Instant::now();
        let rules = BudgetConfig::default().size(10).trickle(1.0);
        let mut bucket = Bucket::new(&rules, start);
        assert_eq!(withdrawals(&mut bucket, start), 10);
        let later = start + 6 * SECOND;
        bucket.change_rules(&rules.size(20), later);
        assert_eq!(bucket.balance(later), 6.0);
        assert_eq!(bucket.balance(later + 3 * SECOND), 9.0);
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
            steps in proptest::collection::vec(any_step(), 0..200),
        ) {
            let (deposit, trickle) = (f64::from(deposit) / 1000.0, f64::from(trickle) / 1000.0);
            let config = BudgetConfig::default().size(size).deposit(deposit).trickle(trickle);
            let start = Instant::now() + 3600 * SECOND;
            let mut bucket = Bucket::new(&config, start);
            let (mut now, mut latest) = (start, start);
            let (mut paid_by_successes, mut denied, mut sent) = (0.0, 0, 0);
            for step in steps {
                match step {
                    Step::Success => {
                        bucket.deposit(Success::OfFirstAttempt);
                        // The host is back: a whole token.
                        paid_by_successes += if denied >= 5 { 1.0 } else { deposit };
                        denied = 0;
                    }
                    Step::Retry if bucket.withdraw(now, 0) => sent += 1,
                    Step::Retry => denied += 1,
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
                    + paid_by_successes
                    + trickle * (latest - start).as_secs_f64();
                prop_assert!(f64::from(sent) <= paid + 1e-9, "{sent} retries, {paid} paid for");
            }
        }

        #[test]
        fn no_setting_breaks_the_bucket(
            size: u32,
            deposit in ANY,
            trickle in ANY,
            secs: u32,
        ) {
            let config = BudgetConfig::default().size(size).deposit(deposit).trickle(trickle);
            let start = Instant::now();
            let mut bucket = Bucket::new(&config, start);
            for _ in 0..3 {
                bucket.deposit(Success::OfFirstAttempt);
                let _ = bucket.withdraw(start + Duration::from_secs(secs.into()), 0);
                bucket.refund();
            }
            prop_assert!(bucket.balance(start) <= f64::from(size));
        }
    }
}
