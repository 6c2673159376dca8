//! The order in which objects are initialised and finalised.

use alloc::vec::Vec;

use crate::namespace::Id;

/// The order with dependencies before the objects that need them. `tree` is breadth first from its
/// root; `needed` gives the direct dependencies. As in glibc (`_dl_sort_maps`), the search begins
/// at the end of the tree, and a cycle is cut where the search comes back to an object that it has
/// not finished; the root is the last in any case.
pub fn initialisation(tree: &[Id], needed: impl Fn(Id) -> Vec<Id>) -> Vec<Id> {
    let Some((root, others)) = tree.split_first() else { return Vec::new() };
    let mut order = search(others, Vec::from([*root]), needed);
    order.push(*root);
    order
}

/// The order with objects before their dependencies. `objects` are in the order in which they were
/// loaded; the result has no others.
pub fn finalisation(objects: &[Id], needed: impl Fn(Id) -> Vec<Id>) -> Vec<Id> {
    let mut order = search(objects, Vec::new(), needed);
    order.retain(|id| objects.contains(id));
    order.reverse();
    order
}

/// A depth-first search that puts each object behind its dependencies. It is not recursive, because
/// the files decide the depth of a tree.
fn search(objects: &[Id], mut seen: Vec<Id>, needed: impl Fn(Id) -> Vec<Id>) -> Vec<Id> {
    let mut order = Vec::new();
    for id in objects.iter().rev() {
        if seen.contains(id) {
            continue;
        }
        seen.push(*id);
        let mut path = Vec::from([(*id, needed(*id).into_iter())]);
        while let Some((id, rest)) = path.last_mut() {
            match rest.find(|next| !seen.contains(next)) {
                Some(next) => {
                    seen.push(next);
                    path.push((next, needed(next).into_iter()));
                }
                None => {
                    order.push(*id);
                    path.pop();
                }
            }
        }
    }
    order
}
