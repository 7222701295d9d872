//! A bucket that threads share, and the retries that wait for its tokens.

use std::{
    pin::Pin,
    sync::{
        Arc, Mutex, OnceLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
};

use crate::common::clock::Instant;
use crate::common::lock::lock;
use crate::common::queue::{WaitQueue, Waiter};
use crate::retry::budget::bucket::{Bucket, Success};
use crate::retry::budget::{BudgetConfig, RetryBudget};

/// The tokens for one host or key, shared by all requests there.
///
/// While the bucket is full a success changes nothing and takes no lock. A success concurrent with
/// a withdrawal may then count as the earlier one.
#[derive(Debug)]
pub(crate) struct Account {
    /// The version of the rules in force.
    version: AtomicU64,
    full: AtomicBool,
    /// Locked before the queue, so that a retry that joins misses no token.
    tokens: Mutex<Tokens>,
    /// Created when the first retry finds no token.
    queue: OnceLock<Arc<WaitQueue<()>>>,
}

/// The tokens, and the rules and time that they begin with, full. The bucket is created at its first
/// use: a host that never failed needs none.
#[derive(Debug)]
struct Tokens {
    config: BudgetConfig,
    since: Instant,
    bucket: Option<Box<Bucket>>,
}

impl Tokens {
    fn bucket(&mut self) -> &mut Bucket {
        let Self { config, since, bucket } = self;
        bucket.get_or_insert_with(|| Box::new(Bucket::new(config, *since)))
    }
}

impl Account {
    /// Creates a full account.
    pub(crate) fn new(rules: &RetryBudget, now: Instant) -> Self {
        Self {
            version: AtomicU64::new(rules.version),
            full: AtomicBool::new(true),
            tokens: Mutex::new(Tokens { config: rules.config, since: now, bucket: None }),
            queue: OnceLock::new(),
        }
    }

    /// Adopts `rules`, unless it has them already. Keeps the balance, as far as it fits.
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

    /// Adds what a success pays for.
    #[inline]
    pub(crate) fn deposit(&self, success: Success) {
        if !self.full.load(Ordering::Acquire) {
            self.change(|bucket| bucket.deposit(success));
        }
    }

    /// Takes a token for a retry, down to `overdraft` tokens below zero; returns whether it did.
    #[must_use]
    pub(crate) fn withdraw(&self, now: Instant, overdraft: u32) -> bool {
        self.change(|bucket| bucket.withdraw(now, overdraft))
    }

    /// Takes what a retry after a timeout costs beside its token, as far as that is there.
    pub(crate) fn charge_timeout(&self, now: Instant) {
        self.change(|bucket| bucket.charge_timeout(now));
    }

    /// Puts back the token of a retry that was never sent.
    pub(crate) fn refund(&self) {
        self.change(Bucket::refund);
    }

    /// Returns the number of tokens.
    pub(crate) fn balance(&self, now: Instant) -> f64 {
        lock(&self.tokens).bucket().balance(now)
    }

    /// Returns whether less than half of the tokens are there.
    pub(crate) fn is_short(&self, now: Instant) -> bool {
        lock(&self.tokens).bucket().is_short(now)
    }

    /// Changes the bucket, and grants its tokens to the retries that wait.
    fn change<R>(&self, change: impl FnOnce(&mut Bucket) -> R) -> R {
        let mut tokens = lock(&self.tokens);
        let bucket = tokens.bucket();
        let result = change(bucket);
        let granted = self.queue.get().map(|queue| {
            // Tokens granted to retries that were dropped, when no other waits.
            (0..queue.reclaim()).for_each(|_| bucket.refund());
            let granted = queue.select(bucket.tokens());
            bucket.take(granted.count());
            granted
        });
        self.full.store(bucket.is_full(), Ordering::Release);
        drop(tokens);
        if let Some(granted) = granted {
            granted.wake();
        }
        result
    }
}

/// A token taken for a retry; returned to its account unless the retry is sent.
#[derive(Debug)]
pub(crate) struct Token(Option<Arc<Account>>);

impl Token {
    pub(crate) fn withdraw(account: Arc<Account>, now: Instant, overdraft: u32) -> Option<Self> {
        account.withdraw(now, overdraft).then(|| Self(Some(account)))
    }

    /// Joins the queue for a token, served in order of arrival; `None` if 10,000 wait.
    pub(crate) fn queue(account: Arc<Account>) -> Option<TokenWaiter> {
        let queue = account.queue.get_or_init(WaitQueue::new);
        // Within a change, which grants a token that has arrived meanwhile.
        let waiter = account.change(|_| queue.join(())).ok()?;
        Some(TokenWaiter { place: Some((waiter, account)) })
    }

    /// Spends the token: the retry is sent.
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

/// A retry's place in the queue for a token, and the future of that token. When dropped, it leaves
/// the queue and passes a granted token to the next.
#[derive(Debug)]
#[must_use = "futures do nothing unless polled"]
pub(crate) struct TokenWaiter {
    /// `None` once ready.
    place: Option<(Waiter<()>, Arc<Account>)>,
}

impl TokenWaiter {
    /// Gives what has trickled in since to the retries that wait.
    pub(crate) fn trickle(&self, now: Instant) {
        if let Some((_, account)) = &self.place {
            account.change(|bucket| bucket.fill(now));
        }
    }
}

impl Future for TokenWaiter {
    type Output = Token;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Token> {
        if let Some((waiter, _)) = &mut self.place {
            ready!(Pin::new(waiter).poll(cx));
        }
        match self.place.take() {
            Some((_, account)) => Poll::Ready(Token(Some(account))),
            None => Poll::Pending,
        }
    }
}

impl Drop for TokenWaiter {
    fn drop(&mut self) {
        if let Some((waiter, account)) = self.place.take() {
            drop(waiter);
            // A granted token that no other retry waits for returns to the bucket.
            account.change(|_| {});
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    fn size(retries: u32) -> BudgetConfig {
        BudgetConfig::default().size(retries)
    }

    #[test]
    fn a_bucket_is_created_at_its_first_use_and_full_then() {
        let now = Instant::now();
        let account = Account::new(&size(2).into(), now);
        account.deposit(Success::OfFirstAttempt);
        account.adopt(&size(2).into(), now);
        let later = now + Duration::from_secs(1_000);
        let other = Account::new(&size(2).into(), now);
        other.deposit(Success::OfFirstAttempt);
        assert!(lock(&other.tokens).bucket.is_none());
        for account in [&account, &other] {
            assert_eq!((account.withdraw(later, 0), account.balance(later)), (true, 1.0));
        }
    }

    #[test]
    fn a_token_comes_back_unless_it_is_spent() {
        let now = Instant::now();
        let account = Arc::new(Account::new(&size(2).into(), now));
        let token = Token::withdraw(Arc::clone(&account), now, 0);
        assert_eq!((token.is_some(), account.balance(now)), (true, 1.0));
        drop(token);
        assert_eq!(account.balance(now), 2.0);
        let [first, second] =
            [(); 2].map(|()| Token::withdraw(Arc::clone(&account), now, 0).unwrap());
        assert!(Token::withdraw(Arc::clone(&account), now, 0).is_none());
        first.spend();
        drop(second);
        assert_eq!(account.balance(now), 1.0);
    }

    #[test]
    fn a_token_that_no_retry_waits_for_returns_to_the_bucket() {
        let now = Instant::now();
        let config = BudgetConfig::default().size(1).deposit(1.0).trickle(0.0);
        let account = Arc::new(Account::new(&config.into(), now));
        Token::withdraw(Arc::clone(&account), now, 0).unwrap().spend();
        let waiter = Token::queue(Arc::clone(&account)).unwrap();
        account.deposit(Success::OfFirstAttempt);
        assert!(!account.withdraw(now, 0), "it is granted to the retry that waits");
        drop(waiter);
        assert!(account.withdraw(now, 0));
    }

    #[test]
    fn an_account_is_shared() {
        let now = Instant::now();
        let config = BudgetConfig::default().size(100).trickle(0.0).deposit(0.5);
        let account = Account::new(&config.into(), now);
        let taken: usize = std::thread::scope(|scope| {
            let take = || (0..100).take_while(|_| account.withdraw(now, 0)).count();
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(take)).collect();
            threads.into_iter().map(|it| it.join().unwrap()).sum()
        });
        assert_eq!(taken, 100);
        account.deposit(Success::OfFirstAttempt);
        account.refund();
        assert_eq!(account.balance(now), 1.5);
    }

    #[test]
    fn no_success_is_lost_or_counted_twice_between_threads() {
        let now = Instant::now();
        let config = size(3_000).trickle(0.0).deposit(0.5);
        let account = Account::new(&config.into(), now);
        let drain = || std::iter::from_fn(|| account.withdraw(now, 0).then_some(())).count();
        assert_eq!(drain(), 3_000);
        let taken: usize = std::thread::scope(|scope| {
            let work = || {
                let round = |_| {
                    account.deposit(Success::OfFirstAttempt);
                    usize::from(account.withdraw(now, 0))
                };
                (0..1_000).map(round).sum::<usize>()
            };
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(work)).collect();
            threads.into_iter().map(|it| it.join().unwrap()).sum()
        });
        assert_eq!(taken + drain(), 2_000);
    }

    #[test]
    fn a_success_takes_no_lock_while_the_bucket_is_full() {
        let now = Instant::now();
        let account = Account::new(&size(3).deposit(0.5).trickle(0.0).into(), now);
        let held = lock(&account.tokens);
        account.deposit(Success::OfFirstAttempt);
        drop(held);
        assert!(account.withdraw(now, 0));
        account.deposit(Success::OfFirstAttempt);
        assert_eq!(account.balance(now), 2.5);
        account.deposit(Success::OfFirstAttempt);
        assert_eq!((account.balance(now), account.full.load(Ordering::Relaxed)), (3.0, true));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2048))]

        #[test]
        fn any_account_is_its_bucket(
            deposit in 0..=1000_u32,
            steps in proptest::collection::vec((0..6_u8, 0..3_000_u64), 0..100),
        ) {
            let config = size(3).deposit(f64::from(deposit) / 1000.0);
            let mut now = Instant::now();
            let rules = RetryBudget::from(config);
            let (account, mut bucket) = (Account::new(&rules, now), Bucket::new(&config, now));
            for (step, millis) in steps {
                match step {
                    0 => prop_assert_eq!(account.withdraw(now, 0), bucket.withdraw(now, 0)),
                    1 => {
                        account.refund();
                        bucket.refund();
                    }
                    _ => {
                        now += Duration::from_millis(millis);
                        account.deposit(Success::OfFirstAttempt);
                        bucket.deposit(Success::OfFirstAttempt);
                    }
                }
                prop_assert_eq!(account.balance(now), bucket.balance(now));
            }
        }
    }
}
