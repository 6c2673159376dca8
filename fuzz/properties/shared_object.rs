//! A shared object: whatever its octets, it is refused, or planned with writes to its own writable segments alone.

use zooid_loader::{Binding, ExportTable, Namespace, Object, Rights, TlsPlace};

const BASE: u64 = 1 << 40;

pub fn check(input: &[u8]) {
    let Ok(object) = Object::parse(input) else { return };
    let names: Vec<&str> = object.symbols().map(|symbol| symbol.name).take(100).collect();
    for name in &names {
        object.symbol(name, None);
    }
    let verified = object.verify("it").is_ok();
    let writable: Vec<_> =
        object.segments().iter().filter(|segment| segment.rights == Rights::ReadWrite).cloned().collect();
    let parsed = Object::parse(input).expect("as before");
    let mut world = Namespace::new(ExportTable::new(names.iter().map(|name| (*name, 1)), &[]));
    let tls = Some(TlsPlace { module: 1, below: object.tls().and_then(|tls| tls.below(0)) });
    let Ok(id) = world.add("it", parsed, BASE, tls) else { return };
    let Ok(new) = world.link(id, true) else { return };
    let planned = world.plan(&new, Binding::Lazy, |write| {
        assert!(writable.iter().any(|segment| segment.memory.contains(&(write.address - BASE))));
    });
    assert!(verified || planned.is_err(), "what a plan accepts, so does the object's own check");
    for segment in object.segments() {
        world.address(BASE + segment.memory.start);
    }
    assert!(world.remove(id).is_some());
}
