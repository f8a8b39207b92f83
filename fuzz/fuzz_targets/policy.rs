//! The documents that come from outside: a policy, a create, a claim, the settings.
#![no_main]

use libfuzzer_sys::fuzz_target;
use volcore::options::OptionSet;
use volcore::policy::TenantPolicy;
use volcore::spec::VolumeSpec;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(policy) = serde_json::from_slice::<TenantPolicy>(bytes) {
        let text = serde_json::to_string(&policy).expect("what was read can be written");
        assert_eq!(serde_json::from_str::<TenantPolicy>(&text).expect("and read again"), policy);
        if policy.check().is_ok() {
            let pool = "rbd".parse().expect("a pool");
            let _ = VolumeSpec::freeze(&policy, OptionSet::default(), &pool);
        }
    }
    let _ = serde_json::from_slice::<volapi::volumes::CreateVolume>(bytes);
    let _ = serde_json::from_slice::<volapi::mounts::ClaimMount>(bytes);
    let _ = serde_json::from_slice::<volapi::Global>(bytes);
});
