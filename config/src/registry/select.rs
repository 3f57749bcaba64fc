//! Who is selected by labels: behind Services, and by AccessPolicies.

use std::collections::HashMap;

use super::lower::{Labels, LoweredWorkload};
use super::{Backing, Member, Registry};

impl Registry {
    /// Of a selector's labels the rarest is looked up, and only who carries it is compared with the others.
    pub(super) fn select_workloads(&mut self, workloads: &[LoweredWorkload]) {
        let mut carrying = Carriers::new();
        for lowered in workloads {
            for (key, value) in &lowered.labels {
                carrying.entry((&lowered.workload.namespace, key, value)).or_default().push(lowered);
            }
        }
        self.access.select(&carrying);
        let mut services: Vec<_> = self.services.values().cloned().collect();
        services.sort_by(|a, b| a.id.cmp(&b.id));
        for service in services {
            let Backing::Selected(selector) = &service.backing else { continue };
            for lowered in carriers_of(selector, &service.id.namespace, &carrying) {
                let workload = &lowered.workload;
                self.selected.entry(service.id.clone()).or_default().push(workload.clone());
                // A template stands for instances and is none.
                let Some(instance) = &lowered.instance else { continue };
                let member = Member::Selected(instance.clone());
                self.members.entry(service.id.clone()).or_default().push(member);
                let workload = (workload.namespace.clone(), workload.name.clone());
                self.selecting.entry(workload).or_default().push(service.id.clone());
            }
        }
    }
}

/// Workloads by namespace and one of their labels, key and value.
pub(super) type Carriers<'w> = HashMap<(&'w str, &'w str, &'w str), Vec<&'w LoweredWorkload>>;

/// Who carries all of these labels; nobody where there are none.
pub(super) fn carriers_of<'w>(
    selector: &Labels,
    namespace: &str,
    carrying: &Carriers<'w>,
) -> Vec<&'w LoweredWorkload> {
    // A label that nobody carries rules everybody out.
    let lists: Option<Vec<_>> =
        selector.iter().map(|(key, value)| carrying.get(&(namespace, &**key, &**value))).collect();
    let rarest = lists.and_then(|lists| lists.into_iter().min_by_key(|list| list.len()));
    let all = |lowered: &&LoweredWorkload| {
        selector.iter().all(|(key, value)| lowered.labels.get(key) == Some(value))
    };
    rarest.into_iter().flatten().copied().filter(all).collect()
}
