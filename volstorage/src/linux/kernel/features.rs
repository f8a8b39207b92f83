//! What an image has and a kernel does not know.

/// The features of images, by their bits (`rbd/features.h`).
const NAMES: [(u64, &str); 9] = [
    (1 << 0, "layering"),
    (1 << 1, "striping"),
    (1 << 2, "exclusive-lock"),
    (1 << 3, "object-map"),
    (1 << 4, "fast-diff"),
    (1 << 5, "deep-flatten"),
    (1 << 6, "journaling"),
    (1 << 7, "data-pool"),
    (1 << 8, "operations"),
];

/// The features in what `rbd info` prints that are not among the known ones.
pub(super) fn lacking(known: &str, info: &[u8], image: &str) -> Option<String> {
    let known = u64::from_str_radix(known.strip_prefix("0x").unwrap_or(known), 16).ok()?;
    let info: serde_json::Value = serde_json::from_slice(info).ok()?;
    let has = |name: &str| {
        info["features"].as_array().into_iter().flatten().any(|feature| feature == name)
    };
    let lacking = NAMES.iter().filter(|(bit, name)| known & bit == 0 && has(name));
    let lacking: Vec<&str> = lacking.map(|(_, name)| *name).collect();
    if lacking.is_empty() {
        return None;
    }
    Some(format!(
        "this kernel's rbd does not know the features {} of image {image}; take them away with `rbd feature \
         disable {image} {}`, or use access nbd or fuse",
        lacking.join(", "),
        lacking.join(" ")
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn features_that_the_kernel_lacks_are_named() {
        let info = br#"{"features": ["layering", "exclusive-lock", "object-map", "journaling"]}"#;
        let reason = lacking("0x3d", info, "rbd/t.v").unwrap();
        assert!(reason.contains("`rbd feature disable rbd/t.v journaling`"), "{reason}");
        let reason = lacking("0x5", info, "rbd/t.v").unwrap();
        assert!(reason.contains("disable rbd/t.v object-map journaling`"), "{reason}");
        assert_eq!(lacking("0x7d", info, "rbd/t.v"), None);
        assert_eq!(lacking("0x7d", b"", "rbd/t.v"), None);
    }
}
