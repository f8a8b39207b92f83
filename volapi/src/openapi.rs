//! The OpenAPI 3.1 document, built from the table of routes and the schemas of the bodies.

use utoipa::openapi::path::{
    HttpMethod, OperationBuilder, ParameterBuilder, ParameterIn, PathItem, PathItemBuilder,
};
use utoipa::openapi::request_body::RequestBodyBuilder;
use utoipa::openapi::schema::{ArrayBuilder, ObjectBuilder, SchemaType, Type};
use utoipa::openapi::{
    Components, ComponentsBuilder, ContentBuilder, InfoBuilder, OpenApi, OpenApiBuilder,
    PathsBuilder, Ref, RefOr, Required, ResponseBuilder, Schema,
};
use utoipa::{PartialSchema, ToSchema};

use crate::problem::PROBLEM_JSON;
use crate::routes::{ROUTES, Route};
use crate::{doctor, hosts, mounts, problem, snapshots, status, tenants, trash, volumes};

/// What goes in and comes out of an operation, by schema name.
struct Bodies {
    /// The request body.
    request: Option<&'static str>,
    /// The status of success and its body; `[]` before a name stands for a page of them.
    success: &'static [(&'static str, &'static str)],
    /// Query parameters.
    query: &'static [&'static str],
}

const OBJECT: &str = "object";
const TEXT: &str = "text";

fn bodies(operation: &str) -> Bodies {
    let (request, success, query): (_, &[_], &[_]) = match operation {
        "tenant_list" => (None, &[("200", "[]Tenant")], &["limit", "continue"]),
        "tenant_get" | "tenant_revision_get" => (None, &[("200", "Tenant")], &[]),
        "tenant_upload" => (Some(OBJECT), &[("200", "Tenant"), ("201", "Tenant")], &[]),
        "tenant_delete" | "host_forget" | "mount_release" | "snapshot_remove" | "trash_purge" => (
            None,
            &[("204", "")],
            if operation == "mount_release" {
                &["host", "boot_id", "force", "unsafe"]
            } else {
                &[]
            },
        ),
        "tenant_revision_list" => (None, &[("200", "[]Tenant")], &[]),
        "volume_list" => (None, &[("200", "[]Volume")], &["tenant", "limit", "continue", "view"]),
        "volume_create" => (Some("CreateVolume"), &[("200", "Volume"), ("201", "Volume")], &[]),
        "volume_adopt" => (Some("AdoptVolume"), &[("200", "Volume"), ("201", "Volume")], &[]),
        "volume_get" | "volume_flatten" => (None, &[("200", "Volume")], &[]),
        "volume_set" => (Some("SetVolume"), &[("200", "Volume")], &[]),
        "volume_remove" => (None, &[("200", "Removed")], &["metadata-only", "disposal"]),
        "snapshot_list" => (None, &[("200", "[]Snapshot")], &["usage"]),
        "snapshot_create" => {
            (Some("CreateSnapshot"), &[("200", "Snapshot"), ("201", "Snapshot")], &[])
        }
        "snapshot_get" => (None, &[("200", "Snapshot")], &[]),
        "snapshot_rollback" => (None, &[("200", "Volume")], &[]),
        "schedule_list" => (None, &[("200", "[]Schedule")], &["tenant", "limit", "continue"]),
        "schedule_due" => (None, &[("200", "DueSnapshots")], &[]),
        "trash_list" => (None, &[("200", "[]Trashed")], &[]),
        "trash_get" => (None, &[("200", "Trashed")], &[]),
        "trash_restore" => (Some("RestoreTrash"), &[("200", "Volume")], &[]),
        "mount_list" => (None, &[("200", "[]Mount")], &["tenant", "limit", "continue"]),
        "mount_get" => (None, &[("200", "Mount")], &[]),
        "mount_claim" => (Some("ClaimMount"), &[("200", "Mount"), ("201", "Mount")], &[]),
        "host_list" => (None, &[("200", "[]Host")], &[]),
        "host_get" => (None, &[("200", "Host")], &[]),
        "host_limit_list" => (None, &[("200", "[]HeldLimits")], &[]),
        "host_order_list" => (None, &[("200", "Orders")], &["wait", "after"]),
        "host_order_report" => (Some("ReportOrder"), &[("204", "")], &[]),
        "host_fence" => (Some("FenceHost"), &[("200", "HostFenced")], &[]),
        "host_session" => (Some("OpenSession"), &[("200", "SessionGranted")], &[]),
        "global_upload" => (Some(OBJECT), &[("200", OBJECT)], &[]),
        "doctor_get" | "doctor_fix" => (None, &[("200", "Doctor")], &[]),
        "status_get" => (None, &[("200", "Status")], &[]),
        "healthz" | "readyz" => (None, &[("200", "Health")], &[]),
        "metrics" => (None, &[("200", TEXT)], &[]),
        _ => (None, &[("200", OBJECT)], &[]),
    };
    Bodies { request, success, query }
}

fn schema(name: &str) -> RefOr<Schema> {
    if let Some(item) = name.strip_prefix("[]") {
        let items = ArrayBuilder::new().items(Ref::from_schema_name(item));
        return ObjectBuilder::new()
            .property("items", items)
            .required("items")
            .property("continue", ObjectBuilder::new().schema_type(SchemaType::Type(Type::String)))
            .into();
    }
    match name {
        OBJECT => ObjectBuilder::new().into(),
        TEXT => ObjectBuilder::new().schema_type(SchemaType::Type(Type::String)).into(),
        _ => RefOr::Ref(Ref::from_schema_name(name)),
    }
}

fn response(name: &str) -> ResponseBuilder {
    let response = ResponseBuilder::new().description(if name.is_empty() { "done" } else { name });
    match name {
        "" => response,
        TEXT => {
            response.content("text/plain", ContentBuilder::new().schema(Some(schema(name))).build())
        }
        _ => response
            .content("application/json", ContentBuilder::new().schema(Some(schema(name))).build()),
    }
}

fn parameter(name: &str, place: ParameterIn) -> ParameterBuilder {
    let required = if place == ParameterIn::Path { Required::True } else { Required::False };
    ParameterBuilder::new()
        .name(name)
        .parameter_in(place)
        .required(required)
        .schema(Some(schema(TEXT)))
}

fn path_item(route: &Route) -> PathItem {
    let Bodies { request, success, query } = bodies(route.operation);
    let mut operation =
        OperationBuilder::new().operation_id(Some(route.operation)).summary(Some(route.summary));
    for segment in route.path.split('/').filter_map(|part| part.strip_prefix('{')) {
        let name = segment.trim_end_matches('}');
        operation = operation.parameter(parameter(name, ParameterIn::Path));
    }
    for name in query {
        operation = operation.parameter(parameter(name, ParameterIn::Query));
    }
    if let Some(name) = request {
        let content = ContentBuilder::new().schema(Some(schema(name))).build();
        let body = RequestBodyBuilder::new().content("application/json", content);
        operation = operation.request_body(Some(body.required(Some(Required::True)).build()));
    }
    for (status, name) in success {
        operation = operation.response(*status, response(name).build());
    }
    let problem = ContentBuilder::new().schema(Some(schema("Problem"))).build();
    let failure =
        ResponseBuilder::new().description("why it was not done").content(PROBLEM_JSON, problem);
    operation = operation.response("default", failure.build());
    let method = match route.method {
        "PUT" => HttpMethod::Put,
        "POST" => HttpMethod::Post,
        "PATCH" => HttpMethod::Patch,
        "DELETE" => HttpMethod::Delete,
        _ => HttpMethod::Get,
    };
    PathItemBuilder::new().operation(method, operation.build()).build()
}

fn components() -> Components {
    fn add<T: ToSchema + PartialSchema>(builder: ComponentsBuilder) -> ComponentsBuilder {
        let mut nested = Vec::new();
        T::schemas(&mut nested);
        builder.schema(T::name(), T::schema()).schemas_from_iter(nested)
    }
    let builder = ComponentsBuilder::new();
    let builder = add::<problem::Problem>(builder);
    let builder = add::<tenants::Tenant>(builder);
    let builder = add::<volumes::Volume>(add::<volumes::CreateVolume>(builder));
    let builder = add::<volumes::VolumeBrief>(add::<volumes::Removed>(builder));
    let builder = add::<volumes::AdoptVolume>(builder);
    let builder = add::<hosts::HeldLimits>(add::<volumes::SetVolume>(builder));
    let builder = add::<snapshots::CreateSnapshot>(add::<snapshots::Snapshot>(builder));
    let builder = add::<snapshots::Schedule>(add::<snapshots::DueSnapshots>(builder));
    let builder = add::<trash::Trashed>(add::<trash::RestoreTrash>(builder));
    let builder = add::<mounts::Mount>(add::<mounts::ClaimMount>(builder));
    let builder = add::<hosts::Host>(add::<hosts::OpenSession>(builder));
    let builder = add::<hosts::FenceHost>(add::<hosts::HostFenced>(builder));
    let builder = add::<hosts::Orders>(add::<hosts::ReportOrder>(builder));
    let builder = add::<doctor::Doctor>(add::<hosts::SessionGranted>(builder));
    add::<status::Status>(add::<status::Health>(builder)).build()
}

/// The document.
pub fn document(version: &str) -> OpenApi {
    let mut paths = PathsBuilder::new();
    for route in &ROUTES {
        paths = paths.path(route.path, path_item(route));
    }
    OpenApiBuilder::new()
        .info(InfoBuilder::new().title("volmaster").version(version).build())
        .paths(paths.build())
        .components(Some(components()))
        .build()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_route_is_in_the_document() {
        let json = serde_json::to_value(document("0")).unwrap();
        assert_eq!(json["openapi"].as_str().map(|v| v.starts_with("3.1")), Some(true));
        for route in &ROUTES {
            let operation = &json["paths"][route.path][route.method.to_lowercase()];
            assert_eq!(
                operation["operationId"], route.operation,
                "{} {}",
                route.method, route.path
            );
        }
    }

    #[test]
    fn every_reference_resolves() {
        let json = serde_json::to_value(document("0")).unwrap();
        let text = json.to_string();
        for piece in text.split("#/components/schemas/").skip(1) {
            let name = piece.split('"').next().unwrap();
            assert!(json["components"]["schemas"].get(name).is_some(), "{name}");
        }
    }
}
