//! Every route, once: as a template for the server, as a builder for the client, and as
//! a table for OpenAPI and for the tests that hold the three together.

use uuid::Uuid;
use volcore::name::{HostName, SnapshotName, TenantName, VolumeId};

/// `GET`
pub const TENANTS: &str = "/v1/tenants";
/// `GET PUT DELETE`
pub const TENANT: &str = "/v1/tenants/{tenant}";
/// `GET`
pub const TENANT_REVISIONS: &str = "/v1/tenants/{tenant}/revisions";
/// `GET`
pub const TENANT_REVISION: &str = "/v1/tenants/{tenant}/revisions/{revision}";
/// `GET POST`
pub const VOLUMES: &str = "/v1/volumes";
/// `GET PATCH DELETE`
pub const VOLUME: &str = "/v1/volumes/{tenant}/{volume}";
/// `GET POST`
pub const DOCTOR: &str = "/v1/doctor";
/// Making an image that is there a volume's own.
pub const VOLUME_ADOPT: &str = "/v1/volumes/{tenant}/{volume}/adopt";
/// Giving a clone all of its data itself.
pub const VOLUME_FLATTEN: &str = "/v1/volumes/{tenant}/{volume}/flatten";
/// `GET POST`
pub const SNAPSHOTS: &str = "/v1/volumes/{tenant}/{volume}/snapshots";
/// `GET DELETE`
pub const SNAPSHOT: &str = "/v1/volumes/{tenant}/{volume}/snapshots/{snapshot}";
/// `POST`
pub const SNAPSHOT_ROLLBACK: &str = "/v1/volumes/{tenant}/{volume}/snapshots/{snapshot}/rollback";
/// `GET`
pub const SCHEDULES: &str = "/v1/schedules";
/// `GET`
pub const SCHEDULES_DUE: &str = "/v1/schedules/due";
/// `GET`
pub const TRASH: &str = "/v1/trash";
/// `GET DELETE`
pub const TRASHED: &str = "/v1/trash/{id}";
/// `POST`
pub const TRASH_RESTORE: &str = "/v1/trash/{id}/restore";
/// `GET`
pub const MOUNTS: &str = "/v1/mounts";
/// `GET PUT DELETE`
pub const MOUNT: &str = "/v1/mounts/{tenant}/{volume}";
/// `GET`
pub const HOSTS: &str = "/v1/hosts";
/// `GET DELETE`
pub const HOST: &str = "/v1/hosts/{host}";
/// `GET`
pub const HOST_LIMITS: &str = "/v1/hosts/{host}/limits";
/// `GET`
pub const HOST_ORDERS: &str = "/v1/hosts/{host}/orders";
/// `PUT`
pub const HOST_ORDER: &str = "/v1/hosts/{host}/orders/{id}";
/// `POST`
pub const HOST_FENCE: &str = "/v1/hosts/{host}/fence";
/// `PUT`
pub const HOST_SESSION: &str = "/v1/hosts/{host}/session";
/// `GET PUT`
pub const GLOBAL: &str = "/v1/global";
/// `GET`
pub const STATUS: &str = "/v1/status";
/// `GET`
pub const OPENAPI: &str = "/v1/openapi.json";
/// `GET`
pub const HEALTHZ: &str = "/healthz";
/// `GET`
pub const READYZ: &str = "/readyz";
/// `GET`
pub const METRICS: &str = "/metrics";

/// One method of one route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    /// `GET`, `PUT`, `POST`, `PATCH` or `DELETE`.
    pub method: &'static str,
    /// The template.
    pub path: &'static str,
    /// The name of the operation on all floors, resource first.
    pub operation: &'static str,
    /// What it does, in a sentence.
    pub summary: &'static str,
}

const fn route(
    method: &'static str,
    path: &'static str,
    operation: &'static str,
    summary: &'static str,
) -> Route {
    Route { method, path, operation, summary }
}

/// Every method of every route.
pub const ROUTES: [Route; 46] = [
    route("GET", TENANTS, "tenant_list", "Lists the tenants."),
    route("GET", TENANT, "tenant_get", "Shows a tenant with its newest policy."),
    route("PUT", TENANT, "tenant_upload", "Uploads a policy as the tenant's next revision."),
    route("DELETE", TENANT, "tenant_delete", "Removes a tenant; its volumes and revisions stay."),
    route("GET", TENANT_REVISIONS, "tenant_revision_list", "Lists the uploads of a tenant."),
    route("GET", TENANT_REVISION, "tenant_revision_get", "Shows one upload of a tenant."),
    route("GET", VOLUMES, "volume_list", "Lists volumes."),
    route("POST", VOLUMES, "volume_create", "Creates a volume, or finds that it is there."),
    route("GET", VOLUME, "volume_get", "Shows a volume and who holds it."),
    route("PATCH", VOLUME, "volume_set", "Changes size, limits and schedule of a volume."),
    route("DELETE", VOLUME, "volume_remove", "Removes a volume and its data."),
    route("POST", VOLUME_ADOPT, "volume_adopt", "Makes an image that is there a volume's own."),
    route(
        "POST",
        VOLUME_FLATTEN,
        "volume_flatten",
        "Has all data of a clone copied into its own image, in the background.",
    ),
    route("GET", SNAPSHOTS, "snapshot_list", "Lists the snapshots of a volume, the oldest first."),
    route("POST", SNAPSHOTS, "snapshot_create", "Takes a snapshot, or finds that it is there."),
    route("GET", SNAPSHOT, "snapshot_get", "Shows a snapshot."),
    route(
        "DELETE",
        SNAPSHOT,
        "snapshot_remove",
        "Removes a snapshot; clones of it keep their data.",
    ),
    route(
        "POST",
        SNAPSHOT_ROLLBACK,
        "snapshot_rollback",
        "Gives a volume that nobody holds the data that it had at a snapshot.",
    ),
    route("GET", SCHEDULES, "schedule_list", "Lists the schedules and what came of them."),
    route("GET", SCHEDULES_DUE, "schedule_due", "Lists the snapshots that are due now."),
    route("GET", TRASH, "trash_list", "Lists the removed volumes whose images are still there."),
    route("GET", TRASHED, "trash_get", "Shows a removed volume."),
    route("DELETE", TRASHED, "trash_purge", "Frees the space of a removed volume."),
    route("POST", TRASH_RESTORE, "trash_restore", "Makes a removed volume a volume again."),
    route("GET", MOUNTS, "mount_list", "Lists the claims."),
    route("GET", MOUNT, "mount_get", "Shows who holds a volume."),
    route("PUT", MOUNT, "mount_claim", "Claims a volume for a host, or renews the claim."),
    route("DELETE", MOUNT, "mount_release", "Releases a host's claim, or clears it by force."),
    route(
        "GET",
        HOSTS,
        "host_list",
        "Lists the hosts with a live session, and those that hold or have lost volumes.",
    ),
    route("GET", HOST, "host_get", "Shows a host."),
    route("DELETE", HOST, "host_forget", "Ends a host's session; its claims stay."),
    route("GET", HOST_LIMITS, "host_limit_list", "Lists the limits of what a host holds."),
    route("GET", HOST_ORDERS, "host_order_list", "Lists what a host is to do, or waits for more."),
    route(
        "PUT",
        HOST_ORDER,
        "host_order_report",
        "Takes down how far a host has come with an order.",
    ),
    route(
        "POST",
        HOST_FENCE,
        "host_fence",
        "Takes all volumes from a host, and cuts it off from them.",
    ),
    route("PUT", HOST_SESSION, "host_session", "Opens or renews a host's session."),
    route("GET", GLOBAL, "global_get", "Shows the settings of the suite."),
    route("PUT", GLOBAL, "global_upload", "Replaces the settings of the suite."),
    route(
        "GET",
        STATUS,
        "status_get",
        "Shows the state of this volmaster and what stands behind it.",
    ),
    route("GET", DOCTOR, "doctor_get", "Compares records, images, claims and the trash."),
    route("POST", DOCTOR, "doctor_fix", "Compares them, and mends what is proven."),
    route("GET", OPENAPI, "openapi_get", "This document."),
    route("GET", HEALTHZ, "healthz", "Whether the process serves."),
    route("GET", READYZ, "readyz", "Whether the store and the images answer."),
    route("GET", METRICS, "metrics", "Counters in the OpenMetrics text format."),
    route("GET", "/v1", "root", "Names the version and where the OpenAPI document is."),
];

/// The path of a tenant.
pub fn tenant(tenant: &TenantName) -> String {
    format!("{TENANTS}/{tenant}")
}

/// The path of a tenant's uploads.
pub fn tenant_revisions(tenant: &TenantName) -> String {
    format!("{TENANTS}/{tenant}/revisions")
}

/// The path of one upload.
pub fn tenant_revision(tenant: &TenantName, revision: u64) -> String {
    format!("{TENANTS}/{tenant}/revisions/{revision}")
}

/// The path of a volume. Names need no escaping: they have no reserved character.
pub fn volume(id: &VolumeId) -> String {
    format!("{VOLUMES}/{id}")
}

/// The path that adopts an image for a volume.
pub fn volume_adopt(id: &VolumeId) -> String {
    format!("{VOLUMES}/{id}/adopt")
}

/// The path that has a volume flattened.
pub fn volume_flatten(id: &VolumeId) -> String {
    format!("{VOLUMES}/{id}/flatten")
}

/// The path of a volume's snapshots.
pub fn snapshots(id: &VolumeId) -> String {
    format!("{VOLUMES}/{id}/snapshots")
}

/// The path of a snapshot.
pub fn snapshot(id: &VolumeId, snapshot: &SnapshotName) -> String {
    format!("{VOLUMES}/{id}/snapshots/{snapshot}")
}

/// The path that rolls a volume back to a snapshot.
pub fn snapshot_rollback(id: &VolumeId, snapshot: &SnapshotName) -> String {
    format!("{VOLUMES}/{id}/snapshots/{snapshot}/rollback")
}

/// The path of a removed volume; `id` is one that a list of the trash has.
pub fn trashed(id: &str) -> String {
    format!("{TRASH}/{id}")
}

/// The path that restores a removed volume.
pub fn trash_restore(id: &str) -> String {
    format!("{TRASH}/{id}/restore")
}

/// The path of a claim.
pub fn mount(id: &VolumeId) -> String {
    format!("{MOUNTS}/{id}")
}

/// The path of a host.
pub fn host(host: &HostName) -> String {
    format!("{HOSTS}/{host}")
}

/// The path of the limits of what a host holds.
pub fn host_limits(host: &HostName) -> String {
    format!("{HOSTS}/{host}/limits")
}

/// The path of what a host is to do.
pub fn host_orders(host: &HostName) -> String {
    format!("{HOSTS}/{host}/orders")
}

/// The path of one order.
pub fn host_order(host: &HostName, id: Uuid) -> String {
    format!("{HOSTS}/{host}/orders/{id}")
}

/// The path of a host's session.
pub fn host_fence(host: &HostName) -> String {
    format!("{HOSTS}/{host}/fence")
}

/// The path of a host's session.
pub fn host_session(host: &HostName) -> String {
    format!("{HOSTS}/{host}/session")
}
