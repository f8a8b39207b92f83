//! What is not as it should be, on the wire.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// What a comparison of records, images, claims and the trash has found, and what was mended of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Doctor {
    /// What is not as it should be, and after that what was mended; at most 1000.
    pub findings: Vec<Finding>,
    /// How many there are in all.
    pub total: u64,
    /// How many of these were mended just now: after that they are as they should be.
    pub fixed: u64,
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
    /// What it is about: a volume, an image, a snapshot, a record or an id in the trash.
    #[schema(example = "tenant1/db")]
    pub object: String,
    /// What is wrong with it.
    pub text: String,
    /// Who sees to it.
    pub remedy: Remedy,
    /// The way out: the command, or what was done.
    pub help: String,
}

/// Who sees to a finding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Remedy {
    /// People: what is right cannot be told from records and images.
    Operator,
    /// `POST /v1/doctor`: what is right is proven, and nothing is lost by it.
    Fix,
    /// Nobody any more: it was mended just now.
    Fixed,
}

impl Remedy {
    /// As it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            Remedy::Operator => "operator",
            Remedy::Fix => "fix",
            Remedy::Fixed => "fixed",
        }
    }
}

/// The sorts of findings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum FindingKind {
    /// A record that this volmaster cannot read.
    RecordUnreadable,
    /// An image that could not be looked at.
    ImageUnreadable,
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
    /// A volume whose image has other limits.
    LimitsDiffer,
    /// A volume between two states, for too long or with an error.
    StuckVolume,
    /// An image that somebody has open although nobody has claimed its volume.
    OpenWithoutClaim,
    /// A claim of a host without a live session.
    ClaimOfSilentHost,
    /// A claim on a volume that is no more.
    ClaimWithoutVolume,
    /// A removed volume whose image is not in the trash.
    TrashWithoutImage,
    /// A log of a schedule without its volume.
    LogWithoutVolume,
    /// What an attempt to make an image has left, which nobody goes on with.
    UnfinishedImage,
    /// A snapshot that was taken for a clone, which does not need it any more.
    LeftSnapshot,
}

impl FindingKind {
    /// As it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            FindingKind::RecordUnreadable => "record-unreadable",
            FindingKind::ImageUnreadable => "image-unreadable",
            FindingKind::OrphanImage => "orphan-image",
            FindingKind::OrphanTrash => "orphan-trash",
            FindingKind::ImageMissing => "image-missing",
            FindingKind::ImageReplaced => "image-replaced",
            FindingKind::SizeDiffers => "size-differs",
            FindingKind::LimitsDiffer => "limits-differ",
            FindingKind::StuckVolume => "stuck-volume",
            FindingKind::OpenWithoutClaim => "open-without-claim",
            FindingKind::ClaimOfSilentHost => "claim-of-silent-host",
            FindingKind::ClaimWithoutVolume => "claim-without-volume",
            FindingKind::TrashWithoutImage => "trash-without-image",
            FindingKind::LogWithoutVolume => "log-without-volume",
            FindingKind::UnfinishedImage => "unfinished-image",
            FindingKind::LeftSnapshot => "left-snapshot",
        }
    }
}
