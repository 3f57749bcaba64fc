//! The mesh as a table: workloads with their state and address, gateways with their URLs, the control plane.

use comfy_table::{ContentArrangement, Table, presets};

use super::mesh::MeshReport;

pub fn table(report: &MeshReport) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(["NAME", "NAMESPACE", "STATE", "RESTARTS", "ADDRESS"]);
    for workload in &report.workloads {
        let ports = workload.ports.iter().map(|port| format!("{}:{port}", workload.address));
        table.add_row([
            workload.name.clone(),
            workload.namespace.clone(),
            workload.state.clone(),
            (workload.restarts + workload.sidecar_restarts).to_string(),
            ports.collect::<Vec<_>>().join(" "),
        ]);
    }
    for gateway in &report.gateways {
        table.add_row([
            gateway.name.clone(),
            gateway.namespace.clone(),
            gateway.state.clone(),
            gateway.restarts.to_string(),
            gateway.urls.join(" "),
        ]);
    }
    if let Some(control) = &report.control {
        table.add_row([
            "control plane".into(),
            "-".into(),
            control.state.clone(),
            control.restarts.to_string(),
            control.api.clone(),
        ]);
    }
    trimmed(&table)
}

/// As text without the spaces that comfy-table puts behind the last column.
pub fn trimmed(table: &Table) -> String {
    table.to_string().lines().map(str::trim_end).collect::<Vec<_>>().join("\n")
}
