//! The same seed and the same calls give the same bytes.

use std::sync::Arc;

use proptest::prelude::*;
use ssh_proto::{ClientConfig, Credential, ServerConfig};
use ssh_tests::{Pair, null_configs, rustcrypto_configs};

use super::ops::{Op, cases, op, perform};

fn run((client, server): (Arc<ClientConfig>, Arc<ServerConfig>), seed: u64, ops: &[(bool, Op)]) -> Pair {
    let mut pair = Pair::new(client, server, seed);
    pair.login_with(Credential::Password("secret".into()));
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for (at_client, op) in ops {
        match at_client {
            true => perform(&mut pair.client, op, &mut ours),
            false => perform(&mut pair.server, op, &mut theirs),
        }
        pair.drive();
    }
    pair
}

fn assert_same(one: &Pair, other: &Pair) {
    assert_eq!(one.client.trace, other.client.trace);
    assert_eq!(one.server.trace, other.server.trace);
    assert!(one.c2s.sent == other.c2s.sent && one.s2c.sent == other.s2c.sent);
}

proptest! {
    #![proptest_config(cases(24))]

    #[test]
    fn l3_the_same_seed_and_calls_give_the_same_bytes(
        seed: u64, ops in proptest::collection::vec((any::<bool>(), op()), 0..20)
    ) {
        let null = run(null_configs(), seed, &ops);
        assert_same(&null, &run(null_configs(), seed, &ops));
        let real = run(rustcrypto_configs(), seed, &ops);
        assert_same(&real, &run(rustcrypto_configs(), seed, &ops));
        let other = run(rustcrypto_configs(), seed ^ 1, &ops);
        prop_assert!(real.c2s.sent != other.c2s.sent && real.s2c.sent != other.s2c.sent);
    }
}
