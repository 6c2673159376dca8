//! In which order objects are initialised.

use alloc::vec::Vec;

use crate::namespace::Id;

/// Dependencies before those who need them. `tree` is breadth first from its root; `needed` gives the direct
/// dependencies. As with glibc (`_dl_sort_maps`), the search begins at the end of the tree, and a cycle is cut where the
/// search comes back to an object that it is still busy with; the root is the last in any case.
pub fn initialisation(tree: &[Id], needed: impl Fn(Id) -> Vec<Id>) -> Vec<Id> {
    let (mut order, mut seen) = (Vec::new(), Vec::new());
    let Some((root, others)) = tree.split_first() else { return order };
    seen.push(*root);
    // Not recursive: how deep a tree is, its files say.
    for id in others.iter().rev() {
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
    order.push(*root);
    order
}
