//! How many retries successes have paid for.

use std::any::Any;
use std::sync::{
    Arc, Mutex, MutexGuard, OnceLock, PoisonError,
    atomic::{AtomicU64, Ordering},
};
use std::{fmt, time::Duration};

use reqwest::Request;

use crate::fault::Fault;
use crate::registry::{Entry, KeyOf, Keyed, Part};
use crate::rules::Rules;
use crate::time::Instant;

/// How a retry budget fills and how much it holds.
///
/// # Why a budget
///
/// Retries turn a blip into an outage. Three plain retries send every request four times just when
/// the server can least bear it. `examples/storm.rs` lets clients of this crate loose on a simulated
/// server of 500 requests a second, first come, first served, that still works for clients that have
/// left. For 10 s nothing answers: fifty clients with three plain retries then keep it down at 50 %
/// load as at 90 %, with 3.9 attempts per request, until nobody watches any more.
///
/// # Why funded by successes
///
/// A budget that refills with time refills during the outage as well, once per client: 20 % plus
/// 10 retries a second is harmless for five clients in that outage, and a second outage for fifty,
/// from 70 % load on for ever. A success is the only evidence that the server has room. A tenth of
/// a retry for each bounds the extra load at 10 % whatever the number of clients, and when nothing
/// succeeds, next to nothing is re-sent.
///
/// # What costs, and what comes back
///
/// A retry costs one token, taken before the wait. It is refunded if the retry is never sent, and
/// only then: how it went makes no difference. Free are retries the server cannot have seen as
/// load, such as the one on a connection that had gone stale. With the bucket empty, the request
/// ends at once with what it has; nobody waits for a token.
///
/// # Default
///
/// Size 3, 0.1 per success, 0.005 per second. With these and a breaker per host, at 50 % to 90 %
/// load, five to five hundred simulated clients are back within 6.1 s of that outage and within
/// 9.4 s of a brownout (30 s at a fifth of the capacity), 5,000 clients within 47 s and 111 s. Any
/// 5 s have at most 1.1 attempts per request with five or fifty clients, 1.9 with five hundred, and
/// 3.5 with 5,000: so many buckets hold much even if each holds little.
///
/// A client on its own that repeats much may have a larger one.
///
/// # Examples
///
/// ```
/// use reqwest_resilient::BudgetConfig;
///
/// // A batch job on its own: one retry for every five successes, bursts of fifty.
/// let budget = BudgetConfig::default().size(50).deposit(0.2);
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BudgetConfig {
    size: u32,
    deposit: f64,
    trickle: f64,
    upkeep: f64,
}

impl BudgetConfig {
    /// The most retries that can be saved up; a new budget is full. Default 3.
    ///
    /// It bounds the burst at the start of an outage, which all clients together make. Three let one
    /// request use all its retries. With ten, 5,000 simulated clients at 90 % load never recover;
    /// with one, five hundred stay below 1.4 attempts per request, but the first failure of a quiet
    /// client gets a single retry.
    pub const fn size(mut self, retries: u32) -> Self {
        self.size = retries;
        self
    }

    /// The retries each successful request pays for, a fraction as a rule. Default 0.1.
    ///
    /// It bounds the share of load that is retries, in the long run. A client whose attempts fail
    /// at random has about one retry to pay per failure: 0.1 feeds a failure rate of 9 %, and the
    /// bucket outlasts higher ones for a while.
    pub const fn deposit(mut self, per_success: f64) -> Self {
        self.deposit = per_success;
        self
    }

    /// The retries that come back by themselves each second. Default 0.005, so that a bucket is
    /// full again after ten minutes.
    ///
    /// Without any, a client too quiet to earn a retry would never get one again. Every client
    /// adds it up during an outage: at 0.05 the retries of 5,000 clients take half of a simulated
    /// server of 500 requests a second, for ever.
    pub const fn trickle(mut self, per_second: f64) -> Self {
        self.trickle = per_second;
        self
    }

    /// What keeping more than one retry costs each second, taken when a request succeeds, for the
    /// time since the success before it. Default 0.2, what two successes a second earn.
    pub const fn upkeep(mut self, per_second: f64) -> Self {
        self.upkeep = per_second;
        self
    }

    /// Every setting that makes no sense: its name, and what is wrong with its value.
    pub(crate) fn faults(&self) -> Vec<Fault> {
        let size =
            (self.size == 0).then(|| Fault::new("retry_budget.size", "must be > 0", self.size));
        let rate = |field, rate: f64| {
            let broken = !(0.0..=f64::from(u32::MAX)).contains(&rate);
            broken.then(|| Fault::new(field, "must be from 0 to 4294967295", rate))
        };
        let deposit = rate("retry_budget.deposit", self.deposit);
        let trickle = rate("retry_budget.trickle", self.trickle);
        let upkeep = rate("retry_budget.upkeep", self.upkeep);
        [size, deposit, trickle, upkeep].into_iter().flatten().collect()
    }
}

impl Default for BudgetConfig {
    fn default() -> Self {
        Self { size: 3, deposit: 0.1, trickle: 0.005, upkeep: 0.2 }
    }
}

/// A retry budget: one bucket for all requests, or one a host or key.
///
/// Asked before every retry, and never waited for: with the bucket empty, the request ends at
/// once with what it has. Cheap to clone; clones share the buckets. See [`BudgetConfig`] for the
/// reasons.
///
/// # Bounded
///
/// At most 1,024 keys are kept, together with the circuit breakers where both are kept per host;
/// the one used least recently is forgotten first, and then starts with a full bucket again.
///
/// ```
/// use reqwest_resilient::{BudgetConfig, ResilientConfig, RetryBudget};
///
/// let config = ResilientConfig::builder()
///     .retry_budget(RetryBudget::per_host(BudgetConfig::default().size(20)))
///     .build()?;
/// # Ok::<(), reqwest_resilient::ConfigError>(())
/// ```
#[derive(Clone, Debug)]
pub struct RetryBudget {
    kept: Arc<Kept>,
}

#[derive(Debug)]
struct Kept {
    rules: Rules<BudgetConfig>,
    scope: Scope,
}

#[derive(Debug)]
enum Scope {
    Shared(OnceLock<Arc<Account>>),
    Keyed(Keyed<Account>),
}

impl RetryBudget {
    /// One bucket for all requests.
    pub fn shared(config: BudgetConfig) -> Self {
        Self::new(config, Scope::Shared(OnceLock::new()))
    }

    /// A bucket for each scheme, host and port of the requests.
    pub fn per_host(config: BudgetConfig) -> Self {
        Self::new(config, Scope::Keyed(Keyed::new(KeyOf::Host)))
    }

    /// A bucket for each key that `key_of` finds in the requests.
    pub fn per_key(
        config: BudgetConfig,
        key_of: impl Fn(&Request) -> String + Send + Sync + 'static,
    ) -> Self {
        Self::new(config, Scope::Keyed(Keyed::new(KeyOf::Request(Box::new(key_of)))))
    }

    fn new(config: BudgetConfig, scope: Scope) -> Self {
        Self { kept: Arc::new(Kept { rules: Rules::new(config), scope }) }
    }

    /// Gives a host, such as `api.example.com`, or all hosts below a domain, `*.example.com`,
    /// buckets of another kind; for all clones, from the next request on.
    ///
    /// For a budget that is kept per host. A name that no host can have is refused by
    /// [`build`](crate::ResilientConfigBuilder::build).
    pub fn for_host(self, host: &str, config: BudgetConfig) -> Self {
        self.kept.rules.set_host(host, config);
        self
    }

    /// How many retries are left at `now` for a key, such as `https://example.com` (no slash at its
    /// end); a key not seen yet gets a full bucket. A shared budget is that of every key.
    pub fn balance(&self, key: &str, now: Instant) -> f64 {
        let account = match &self.kept.scope {
            Scope::Shared(account) => self.shared_account(account, now),
            Scope::Keyed(keyed) => {
                keyed.of_key(key, |key| Account::new(key, &self.kept.rules, now))
            }
        };
        account.keep_up(&self.kept.rules, now);
        account.balance(now)
    }

    /// The rules, to be shown.
    pub(crate) fn rules(&self) -> &dyn fmt::Debug {
        &self.kept.rules
    }

    pub(crate) fn faults(&self) -> Vec<Fault> {
        self.kept.rules.faults(BudgetConfig::faults, "retry_budget.for_host")
    }

    /// Whether both are the same.
    pub(crate) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.kept, &other.kept)
    }

    /// Whether this budget, with its balances, can stand in for `other`: it is kept in the same
    /// way, and has then taken over its rules.
    pub(crate) fn replaces(&self, other: &Self) -> bool {
        let alike = match (&self.kept.scope, &other.kept.scope) {
            (Scope::Shared(_), Scope::Shared(_)) => true,
            (Scope::Keyed(ours), Scope::Keyed(theirs)) => {
                ours.is_per_host() && theirs.is_per_host()
            }
            _ => false,
        };
        if alike {
            self.kept.rules.replace(&other.kept.rules);
        }
        alike
    }

    /// Keeps its buckets where `other` is kept, so that one look-up finds both.
    pub(crate) fn join<Q: Part>(&self, other: &Keyed<Q>) {
        if let Scope::Keyed(keyed) = &self.kept.scope {
            keyed.join(other);
        }
    }

    /// Where the buckets are kept, if there are several.
    pub(crate) fn keyed(&self) -> Option<&Keyed<Account>> {
        match &self.kept.scope {
            Scope::Shared(_) => None,
            Scope::Keyed(keyed) => Some(keyed),
        }
    }

    pub(crate) fn of_request(
        &self,
        request: &Request,
        found: &mut Option<Arc<Entry>>,
        now: Instant,
    ) -> Arc<Account> {
        let account = match &self.kept.scope {
            Scope::Shared(account) => self.shared_account(account, now),
            Scope::Keyed(keyed) => {
                let create = |key: &str| Account::new(key, &self.kept.rules, now);
                keyed.of_request(request, found, create)
            }
        };
        account.keep_up(&self.kept.rules, now);
        account
    }

    fn shared_account(&self, account: &OnceLock<Arc<Account>>, now: Instant) -> Arc<Account> {
        Arc::clone(account.get_or_init(|| Arc::new(Account::new("", &self.kept.rules, now))))
    }
}

/// The tokens kept for one key, shared by everything that re-sends to it.
#[derive(Debug)]
pub(crate) struct Account {
    key: Box<str>,
    /// Of the rules in `bucket`.
    version: AtomicU64,
    bucket: Mutex<Bucket>,
}

impl Account {
    /// A full account.
    pub(crate) fn new(key: &str, rules: &Rules<BudgetConfig>, now: Instant) -> Self {
        let (config, version) = rules.of(key);
        Self {
            key: key.into(),
            version: AtomicU64::new(version),
            bucket: Mutex::new(Bucket::new(&config, now)),
        }
    }

    /// Takes over the rules, if they have changed. The balance stays, as far as it fits.
    fn keep_up(&self, rules: &Rules<BudgetConfig>, now: Instant) {
        if self.version.load(Ordering::Relaxed) != rules.version() {
            let mut bucket = self.lock();
            // Read under the lock, so that an older reading cannot overwrite a newer one.
            let (config, version) = rules.of(&self.key);
            bucket.change_rules(&config, now);
            self.version.store(version, Ordering::Relaxed);
        }
    }

    /// Adds what a successful request pays for.
    pub(crate) fn deposit(&self, now: Instant) {
        self.lock().deposit(now);
    }

    /// Takes a token for a retry, unless there is none.
    #[must_use]
    pub(crate) fn withdraw(&self, now: Instant) -> bool {
        self.lock().withdraw(now)
    }

    /// Puts back the token of a retry that was never sent.
    pub(crate) fn refund(&self) {
        self.lock().refund();
    }

    /// The tokens there are.
    pub(crate) fn balance(&self, now: Instant) -> f64 {
        self.lock().balance(now)
    }

    fn lock(&self) -> MutexGuard<'_, Bucket> {
        // No step of the bucket can stop halfway.
        self.bucket.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Part for Account {
    /// A full bucket is what a forgotten one becomes; an empty one is forgotten like any other,
    /// lest a crawler's failures fill the registry.
    fn pinned(&self) -> bool {
        false
    }

    fn into_any(self: Arc<Self>) -> Arc<dyn Any + Send + Sync> {
        self
    }
}

/// A token taken for a retry, which goes back to its account unless the retry is sent.
#[derive(Debug)]
pub(crate) struct Token(Option<Arc<Account>>);

impl Token {
    pub(crate) fn withdraw(account: &Arc<Account>, now: Instant) -> Option<Self> {
        account.withdraw(now).then(|| Self(Some(Arc::clone(account))))
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

/// One token, counted so finely that a billionth of a token per second is exact to the nanosecond.
///
/// Counting in integers makes four deposits of 0.25 worth a retry, and ten of 0.1 as well.
const TOKEN: u128 = BILLION * BILLION;

const BILLION: u128 = 1_000_000_000;

/// A token bucket that fills by deposits, and by time as of when it is asked.
#[derive(Clone, Debug)]
pub(crate) struct Bucket {
    /// Never above `size`.
    balance: u128,
    size: u128,
    deposit: u128,
    /// For each nanosecond.
    trickle: u128,
    /// For each nanosecond, of what is more than a token.
    upkeep: u128,
    succeeded: Option<Instant>,
    /// Until when the trickle is in the balance; never goes back.
    filled: Instant,
}

impl Bucket {
    /// A full bucket.
    pub(crate) fn new(config: &BudgetConfig, now: Instant) -> Self {
        // A float cast saturates, and takes what is not a number for 0.
        let billionths = |rate: f64| (rate * BILLION as f64).round() as u128;
        let size = u128::from(config.size) * TOKEN;
        Self {
            balance: size,
            size,
            deposit: billionths(config.deposit).saturating_mul(BILLION),
            trickle: billionths(config.trickle),
            upkeep: billionths(config.upkeep),
            succeeded: None,
            filled: now,
        }
    }

    /// Goes on under other rules with what has come in so far.
    fn change_rules(&mut self, config: &BudgetConfig, now: Instant) {
        self.fill(now);
        let full = Self::new(config, self.filled);
        let succeeded = self.succeeded;
        *self = Self { balance: self.balance.min(full.size), succeeded, ..full };
    }

    /// Adds what a successful request pays for.
    pub(crate) fn deposit(&mut self, now: Instant) {
        self.fill(now);
        let idle = self.succeeded.map_or(Duration::ZERO, |it| now.saturating_duration_since(it));
        self.succeeded = self.succeeded.max(Some(now));
        let upkeep = idle.as_nanos().saturating_mul(self.upkeep);
        let spare = self.balance.saturating_sub(TOKEN);
        self.balance -= spare.min(upkeep);
        self.add(self.deposit);
    }

    /// Takes a token for a retry, unless there is none.
    #[must_use]
    pub(crate) fn withdraw(&mut self, now: Instant) -> bool {
        self.fill(now);
        match self.balance.checked_sub(TOKEN) {
            Some(rest) => {
                self.balance = rest;
                true
            }
            None => false,
        }
    }

    /// Puts back the token of a retry that was never sent.
    pub(crate) fn refund(&mut self) {
        self.add(TOKEN);
    }

    /// The tokens there are.
    pub(crate) fn balance(&self, now: Instant) -> f64 {
        let balance = self.balance.saturating_add(self.trickled(now)).min(self.size);
        // Apart, since a float has no room for a full bucket of billionths.
        (balance / TOKEN) as f64 + (balance % TOKEN) as f64 / TOKEN as f64
    }

    fn trickled(&self, now: Instant) -> u128 {
        now.saturating_duration_since(self.filled).as_nanos().saturating_mul(self.trickle)
    }

    /// Adds what has trickled in.
    fn fill(&mut self, now: Instant) {
        self.add(self.trickled(now));
        self.filled = self.filled.max(now);
    }

    fn add(&mut self, amount: u128) {
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
    fn an_account_is_shared() {
        let now = Instant::now();
        let config = BudgetConfig::default().size(100).trickle(0.0).deposit(0.5);
        let account = Account::new("", &Rules::new(config), now);
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
    fn faults_name_field_and_value() {
        assert_eq!(BudgetConfig::default().faults(), []);
        let config = BudgetConfig::default().size(0).deposit(f64::NAN).trickle(-0.5).upkeep(-1.0);
        let faults: Vec<_> = config.faults().iter().map(ToString::to_string).collect();
        assert_eq!(
            faults,
            [
                "retry_budget.size must be > 0, got 0",
                "retry_budget.deposit must be from 0 to 4294967295, got NaN",
                "retry_budget.trickle must be from 0 to 4294967295, got -0.5",
                "retry_budget.upkeep must be from 0 to 4294967295, got -1.0",
            ]
        );
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
