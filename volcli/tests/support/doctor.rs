//! The doctor of the volmaster in memory: it finds what it is told to, and mends what it is told that it can.

use axum::Router;
use axum::extract::State;
use axum::response::Response;
use axum::routing::get;
use volapi::doctor::{Doctor, Finding, FindingKind, Remedy};
use volapi::routes;

use super::{Data, Fake, Shared, reply};

impl Fake {
    /// Has something wrong with an object.
    pub fn ails(&self, kind: FindingKind, object: &str, remedy: Remedy) {
        let help = match remedy {
            Remedy::Operator => format!("`volcli volume adopt {object}` makes it a volume again"),
            Remedy::Fix | Remedy::Fixed => "`volcli doctor --fix` drops the record".to_owned(),
        };
        let (object, text) = (object.to_owned(), "it is not as it should be".to_owned());
        let finding = Finding { kind, object, text, remedy, help };
        self.data.lock().unwrap().findings.push(finding);
    }
}

pub fn router() -> Router<Shared> {
    Router::new().route(routes::DOCTOR, get(doctor_get).post(doctor_fix))
}

fn told(data: &Data, findings: Vec<Finding>) -> Response {
    let fixed = findings.iter().filter(|found| found.remedy == Remedy::Fixed).count() as u64;
    let doctor = Doctor {
        total: findings.len() as u64,
        fixed,
        findings,
        volumes: data.volumes.len() as u64,
        images: data.volumes.len() as u64 + 1,
        foreign_images: 1,
    };
    reply(200, serde_json::to_value(doctor).unwrap())
}

async fn doctor_get(State(data): State<Shared>) -> Response {
    let data = data.lock().unwrap();
    told(&data, data.findings.clone())
}

async fn doctor_fix(State(data): State<Shared>) -> Response {
    let mut data = data.lock().unwrap();
    let mut findings = data.findings.clone();
    for found in findings.iter_mut().filter(|found| found.remedy == Remedy::Fix) {
        (found.remedy, found.help) = (Remedy::Fixed, "the record was dropped".to_owned());
    }
    findings.sort_by_key(|found| found.remedy == Remedy::Fixed);
    data.findings.retain(|found| found.remedy == Remedy::Operator);
    told(&data, findings)
}
