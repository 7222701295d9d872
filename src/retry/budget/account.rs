//! A bucket that threads share.

use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError,
    atomic::{AtomicU64, Ordering},
};

use crate::common::clock::{Instant, nanos};
use crate::retry::budget::{RetryBudget, bucket::Bucket};

/// The tokens kept for one key, shared by everything that re-sends to it.
///
/// While the bucket is full and successes come often enough, a success changes nothing but when the
/// last one was, and that is noted without the lock. One that meets a withdrawal may then count as
/// having come before it.
#[derive(Debug)]
pub(crate) struct Account {
    /// Of the rules in `bucket`.
    version: AtomicU64,
    bucket: Mutex<Bucket>,
    /// From which the moments here and in `bucket` are counted.
    epoch: Instant,
    /// One more than the moment of the last success; 0 before the first.
    succeeded: AtomicU64,
    /// A success changes nothing else if it comes less than this after the one before.
    calm: AtomicU64,
}

impl Account {
    /// Creates a full account.
    pub(crate) fn new(rules: &RetryBudget, now: Instant) -> Self {
        let bucket = Bucket::new(&rules.config, now);
        Self {
            version: AtomicU64::new(rules.version),
            epoch: now,
            succeeded: AtomicU64::new(0),
            calm: AtomicU64::new(bucket.calm()),
            bucket: Mutex::new(bucket),
        }
    }

    /// Follows `rules` from now on, unless it does already. The balance stays, as far as it fits.
    #[inline]
    pub(crate) fn adopt(&self, rules: &RetryBudget, now: Instant) {
        if self.version.load(Ordering::Relaxed) != rules.version {
            self.follow(rules, now);
        }
    }

    #[cold]
    fn follow(&self, rules: &RetryBudget, now: Instant) {
        self.change(|bucket| {
            bucket.change_rules(&rules.config, now);
            self.version.store(rules.version, Ordering::Relaxed);
        });
    }

    /// Adds what a successful request pays for.
    pub(crate) fn deposit(&self, now: Instant) {
        let mark = nanos(now.saturating_duration_since(self.epoch)).saturating_add(1);
        let last = self.succeeded.load(Ordering::Relaxed);
        if mark.saturating_sub(last) < self.calm.load(Ordering::Acquire) {
            // Of threads that are here at once, an older moment may stay: it is as good.
            self.succeeded.store(mark.max(last), Ordering::Relaxed);
        } else {
            self.change(|bucket| bucket.deposit(now));
        }
    }

    /// Takes a token for a retry, unless there is none.
    #[must_use]
    pub(crate) fn withdraw(&self, now: Instant) -> bool {
        self.change(|bucket| bucket.withdraw(now))
    }

    /// Puts back the token of a retry that was never sent.
    pub(crate) fn refund(&self) {
        self.change(Bucket::refund);
    }

    /// The tokens there are.
    pub(crate) fn balance(&self, now: Instant) -> f64 {
        self.lock().balance(now)
    }

    fn change<R>(&self, change: impl FnOnce(&mut Bucket) -> R) -> R {
        let mut bucket = self.lock();
        if let Some(last) = self.succeeded.load(Ordering::Relaxed).checked_sub(1) {
            bucket.has_succeeded(last);
        }
        let result = change(&mut bucket);
        let last = bucket.last_success().map_or(0, |it| it.saturating_add(1));
        self.succeeded.fetch_max(last, Ordering::Relaxed);
        self.calm.store(bucket.calm(), Ordering::Release);
        result
    }

    fn lock(&self) -> MutexGuard<'_, Bucket> {
        // No step of the bucket can stop halfway.
        self.bucket.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A token taken for a retry, which goes back to its account unless the retry is sent.
#[derive(Debug)]
pub(crate) struct Token(Option<Arc<Account>>);

impl Token {
    pub(crate) fn withdraw(account: Arc<Account>, now: Instant) -> Option<Self> {
        account.withdraw(now).then(|| Self(Some(account)))
    }

    /// The retry is sent.
    pub(crate) fn spend(mut self) {
        self.0 = None;
    }
}

impl Drop for Token {
    fn drop(&mut self) {
        if let Some(account) = &self.0 {
            account.refund();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use crate::retry::budget::BudgetConfig;

    fn size(retries: u32) -> BudgetConfig {
        BudgetConfig::default().size(retries)
    }

    #[test]
    fn a_token_comes_back_unless_it_is_spent() {
        let now = Instant::now();
        let account = Arc::new(Account::new(&size(2).into(), now));
        let token = Token::withdraw(Arc::clone(&account), now);
        assert_eq!((token.is_some(), account.balance(now)), (true, 1.0));
        drop(token);
        assert_eq!(account.balance(now), 2.0);
        let [first, second] = [(); 2].map(|()| Token::withdraw(Arc::clone(&account), now).unwrap());
        assert!(Token::withdraw(Arc::clone(&account), now).is_none());
        first.spend();
        drop(second);
        assert_eq!(account.balance(now), 1.0);
    }

    #[test]
    fn an_account_is_shared() {
        let now = Instant::now();
        let config = BudgetConfig::default().size(100).trickle(0.0).deposit(0.5);
        let account = Account::new(&config.into(), now);
        let taken: usize = std::thread::scope(|scope| {
            let take = || (0..100).filter(|_| account.withdraw(now)).count();
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(take)).collect();
            threads.into_iter().map(|it| it.join().unwrap()).sum()
        });
        assert_eq!(taken, 100);
        account.deposit(now);
        account.refund();
        assert_eq!(account.balance(now), 1.5);
    }

    #[test]
    fn no_success_is_lost_or_counted_twice_between_threads() {
        let now = Instant::now();
        let config = size(3_000).trickle(0.0).deposit(0.5).upkeep(0.0);
        let account = Account::new(&config.into(), now);
        let drain = || std::iter::from_fn(|| account.withdraw(now).then_some(())).count();
        assert_eq!(drain(), 3_000);
        let taken: usize = std::thread::scope(|scope| {
            let work = || {
                let round = |millis| {
                    account.deposit(now + Duration::from_millis(millis));
                    usize::from(account.withdraw(now))
                };
                (0..1_000).map(round).sum::<usize>()
            };
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(work)).collect();
            threads.into_iter().map(|it| it.join().unwrap()).sum()
        });
        assert_eq!(taken + drain(), 2_000);
    }

    #[test]
    fn a_success_among_many_takes_no_lock() {
        let now = Instant::now();
        let at = |millis| now + Duration::from_millis(millis);
        let account = Account::new(&size(3).into(), now);
        (0..10).for_each(|half_seconds| account.deposit(at(500 * half_seconds)));
        assert_eq!(account.lock().last_success(), None, "the bucket heard of none");
        assert_eq!(account.balance(now), 3.0);
        account.deposit(at(4_500 + 1_500));
        assert_eq!(account.balance(now), 2.8, "paid for what lies between the last two");
        assert!(account.withdraw(now));
        account.deposit(now);
        assert_eq!(account.balance(now), 1.9, "only a full one may pass a success by");
        (0..20).for_each(|_| account.deposit(at(6_000)));
        account.deposit(at(6_400));
        assert_eq!(account.lock().last_success(), Some(6_000_000_000), "full, it hears of no more");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2048))]

        #[test]
        fn any_account_is_its_bucket(
            deposit in 0..=1000_u32,
            upkeep in 0..=1000_u32,
            steps in proptest::collection::vec((0..6_u8, 0..3_000_u64), 0..100),
        ) {
            let config = size(3).deposit(f64::from(deposit) / 1000.0);
            let config = config.upkeep(f64::from(upkeep) / 1000.0);
            let mut now = Instant::now();
            let (account, mut bucket) =
                (Account::new(&config.into(), now), Bucket::new(&config, now));
            for (step, millis) in steps {
                match step {
                    0 => prop_assert_eq!(account.withdraw(now), bucket.withdraw(now)),
                    1 => {
                        account.refund();
                        bucket.refund();
                    }
                    _ => {
                        now += Duration::from_millis(millis);
                        account.deposit(now);
                        bucket.deposit(now);
                    }
                }
                prop_assert_eq!(account.balance(now), bucket.balance(now));
            }
        }
    }
}
