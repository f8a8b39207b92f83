//! The trash on the wire.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use volcore::name::VolumeId;

/// A removed volume whose image is still there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Trashed {
    /// Under which it is restored or purged.
    #[schema(example = "6f9619ff8b86d011b42d00c04fc964ff")]
    pub id: String,
    /// The volume that it was.
    #[schema(value_type = String, example = "tenant1/db")]
    pub volume: VolumeId,
    /// When it was removed.
    #[schema(value_type = String, format = DateTime)]
    pub removed_at: Timestamp,
    /// From when on its space is freed; absent where it is kept until somebody purges it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub purge_after: Option<Timestamp>,
    /// The pool of the image.
    pub pool: String,
    /// The name that the image had.
    pub image: String,
    /// The image's own id, under which the trash of the pool knows it.
    pub image_id: String,
    /// The size of the volume, in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
    /// Whether it can be restored.
    pub restorable: bool,
}

/// The body of a restoration.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RestoreTrash {
    /// The volume that it becomes; the one that it was where this is absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, example = "tenant1/db-old")]
    pub volume: Option<VolumeId>,
}
