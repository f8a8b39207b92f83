//! What is not as it should be, on the wire.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// What a comparison of records, images, claims and the trash has found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Doctor {
    /// What is not as it should be; at most 1000.
    pub findings: Vec<Finding>,
    /// How many there are in all.
    pub total: u64,
    /// How many volumes were compared.
    pub volumes: u64,
    /// How many images were compared.
    pub images: u64,
    /// How many of these the suite has not made; they are nobody's business here.
    pub foreign_images: u64,
}

/// One thing that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Finding {
    /// Of which sort.
    pub kind: FindingKind,
    /// What it is about: a volume, an image or an id in the trash.
    #[schema(example = "tenant1/db")]
    pub object: String,
    /// What is wrong with it.
    pub text: String,
    /// The way out, for people to decide on.
    pub help: String,
}

/// The sorts of findings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum FindingKind {
    /// An image of a volume that is no more.
    OrphanImage,
    /// The same in the trash of a pool.
    OrphanTrash,
    /// A volume without its image.
    ImageMissing,
    /// A volume in whose image's place there is another.
    ImageReplaced,
    /// A volume whose image has another size.
    SizeDiffers,
    /// A volume between two states, for too long or with an error.
    StuckVolume,
    /// A claim of a host without a live session.
    ClaimOfSilentHost,
    /// A claim on a volume that is no more.
    ClaimWithoutVolume,
    /// A removed volume whose image is not in the trash.
    TrashWithoutImage,
    /// A log of a schedule without its volume.
    LogWithoutVolume,
}

impl FindingKind {
    /// As it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            FindingKind::OrphanImage => "orphan-image",
            FindingKind::OrphanTrash => "orphan-trash",
            FindingKind::ImageMissing => "image-missing",
            FindingKind::ImageReplaced => "image-replaced",
            FindingKind::SizeDiffers => "size-differs",
            FindingKind::StuckVolume => "stuck-volume",
            FindingKind::ClaimOfSilentHost => "claim-of-silent-host",
            FindingKind::ClaimWithoutVolume => "claim-without-volume",
            FindingKind::TrashWithoutImage => "trash-without-image",
            FindingKind::LogWithoutVolume => "log-without-volume",
        }
    }
}
