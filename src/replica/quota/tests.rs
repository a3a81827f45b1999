//! The buckets by a clock of their own.

use drave_batch::EntryKind;
use proptest::prelude::*;

use super::*;

fn quota(bytes_per_second: u64, records_per_second: u64) -> Quota {
    Quota {
        bytes_per_second,
        records_per_second,
    }
}

fn batch(log_id: u64, record_count: u32) -> BatchHeader {
    BatchHeader {
        log_id,
        record_count,
        ..BatchHeader::new(EntryKind::Data, &[0; 40], 0)
    }
}

#[test]
fn a_second_is_kept_and_a_debt_is_waited_for() {
    let mut bucket = Bucket::new(quota(1_000, 0), 0);
    assert_eq!(bucket.take(0, 999, 1), Ok(()));
    // One byte is left: what needs more is taken whole.
    assert_eq!(bucket.take(0, 2_001, 1), Ok(()));
    assert_eq!(bucket.take(0, 1, 1), Err(2_000_001));
    assert_eq!(bucket.take(2_000_000, 1, 1), Err(1));
    assert_eq!(bucket.take(2_000_001, 1, 1), Ok(()));
    // However long it was idle, a second's worth is there.
    assert_eq!(bucket.take(900_000_000, 1_000, 1), Ok(()));
    assert!(bucket.take(900_000_000, 1, 1).is_err());
}

#[test]
fn the_limit_that_is_used_up_refuses() {
    let mut bucket = Bucket::new(quota(1_000_000, 2), 0);
    assert_eq!(bucket.take(0, 10, 2), Ok(()));
    assert_eq!(bucket.take(0, 10, 1), Err(1));
    assert_eq!(bucket.take(1, 10, 1), Ok(()));
    assert_eq!(bucket.take(1, 10, 1), Err(500_000));
}

#[test]
fn a_clock_that_goes_back_gives_nothing() {
    let mut bucket = Bucket::new(quota(1_000, 0), 5_000_000);
    assert_eq!(bucket.take(5_000_000, 2_000, 1), Ok(()));
    assert_eq!(bucket.take(4_000_000, 1, 1), Err(1_000_001));
    assert_eq!(bucket.take(5_000_000, 1, 1), Err(1_000_001));
}

#[test]
fn logs_are_judged_apart_and_without_a_quota_not_at_all() {
    let mut quotas = Quotas::default();
    let limit = quota(0, 1);
    assert_eq!(quotas.check(0, &[(limit, &batch(1, 1))]), None);
    let refusal = quotas.check(0, &[(limit, &batch(1, 1))]).unwrap();
    assert_eq!(refusal.code, ErrorCode::QuotaExceeded);
    assert!(refusal.message.contains("1 records"), "{}", refusal.message);
    assert_eq!(quotas.check(0, &[(limit, &batch(2, 1))]), None);
    assert_eq!(quotas.check(0, &[(Quota::default(), &batch(1, 1))]), None);
    // Another limit holds from the next batch on.
    assert_eq!(quotas.check(0, &[(quota(0, 2), &batch(1, 2))]), None);
    assert!(quotas.check(0, &[(quota(0, 2), &batch(1, 1))]).is_some());
}

#[test]
fn idle_buckets_go_and_debts_stay() {
    let mut quotas = Quotas::default();
    assert_eq!(quotas.check(0, &[(quota(0, 1), &batch(1, 1))]), None);
    assert_eq!(quotas.check(0, &[(quota(0, 1), &batch(2, 1_000))]), None);
    let later_us = 60 * SECOND_US;
    assert_eq!(quotas.check(later_us, &[(quota(0, 1), &batch(3, 1))]), None);
    assert_eq!(quotas.by_log.len(), 2, "{:?}", quotas.by_log);
    assert!(
        quotas
            .check(later_us, &[(quota(0, 1), &batch(2, 1))])
            .is_some()
    );
}

proptest! {
    /// Over any time no more is taken than the rate gives, a second's worth and one batch; and who always
    /// asks again after the time that the refusal names gets the whole rate.
    #[test]
    fn the_rate_is_held_and_reached(
        per_second in 1_u64..1 << 40,
        sizes in proptest::collection::vec(1_u64..1 << 30, 1..200),
    ) {
        let mut bucket = Bucket::new(quota(per_second, 0), 0);
        let (mut now_us, mut taken) = (0_u64, 0_u128);
        for size in sizes {
            while let Err(wait_us) = bucket.take(now_us, size, 1) {
                let given = u128::from(per_second) * u128::from(now_us) / u128::from(SECOND_US);
                prop_assert!(taken + 1 >= given, "{taken} of {given} at {now_us} us");
                prop_assert!(wait_us > 0);
                now_us += wait_us;
            }
            taken += u128::from(size);
            let given = u128::from(per_second) * u128::from(now_us + SECOND_US);
            prop_assert!(taken <= given / u128::from(SECOND_US) + u128::from(size));
        }
    }
}
