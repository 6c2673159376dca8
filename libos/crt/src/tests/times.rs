//! Calendars.

use core::ffi::{CStr, c_char, c_int, c_long};
use std::borrow::ToOwned;
use std::vec::Vec;

use super::{Random, ours, theirs};

/// `struct tm`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq)]
struct Broken {
    parts: [c_int; 9],
    offset: c_long,
    zone: usize,
}

impl Broken {
    const NONE: Self = Self { parts: [0; 9], offset: 7, zone: 0 };
    fn known(self) -> Self {
        Self { zone: 0, ..self }
    }
}

fn times() -> Vec<c_long> {
    let mut random = Random(31);
    let mut times = std::vec![
        0,
        -1,
        951_782_399,
        951_782_400,
        951_868_800,
        4_107_542_399,
        4_107_542_400,
        -62_135_596_801,
        253_402_300_800
    ];
    times.extend((0..20_000).map(|_| random.next() as i64 >> (24 + random.below(20))));
    times
}

#[test]
fn times_are_broken_down_and_put_together_as_by_the_c_library() {
    type Break = unsafe extern "C" fn(&c_long, &mut Broken) -> *const Broken;
    type Make = unsafe extern "C" fn(&mut Broken) -> c_long;
    let mut random = Random(32);
    for time in times() {
        let [mine, other] = [ours::<Break>(c"gmtime_r"), theirs::<Break>(c"gmtime_r")].map(|function| {
            let mut broken = Broken::NONE;
            let null = unsafe { function(&time, &mut broken) }.is_null();
            (null, broken.known())
        });
        assert_eq!(mine, other, "{time}");
        let mut changed = mine.1;
        for part in &mut changed.parts[..6] {
            *part = part.wrapping_add(random.below(200) as c_int - 100);
        }
        let [mine, other] = [ours::<Make>(c"timegm"), theirs::<Make>(c"timegm")].map(|function| {
            let mut broken = changed;
            (unsafe { function(&mut broken) }, broken.known())
        });
        assert_eq!(mine, other, "{changed:?}");
    }
    for time in [i64::MAX, i64::MIN, i64::MAX / 2] {
        assert!(unsafe { ours::<Break>(c"gmtime_r")(&time, &mut { Broken::NONE }) }.is_null());
    }
}

#[test]
fn times_are_written_as_by_the_c_library() {
    type Write = unsafe extern "C" fn(*mut c_char, usize, *const c_char, &Broken) -> usize;
    type Break = unsafe extern "C" fn(&c_long, &mut Broken) -> *const Broken;
    let format = c"%a %A %b %B %c %C %d %D %e %F %g %G %h %H %I %j %k %l %m %M %n %p %P %r %R %S %t %T %u %U %V %w %W %x %X %y %Y %z %Z %% %Ey %Od";
    // Only years of four digits, because glibc's `%C` has no leading zero for others.
    for time in times().into_iter().filter(|time| (-30_610_224_000..250_000_000_000).contains(time)) {
        let mut broken = Broken::NONE;
        unsafe { theirs::<Break>(c"gmtime_r")(&time, &mut broken) };
        // glibc names it GMT; here it is UTC.
        broken.zone = c"UTC".as_ptr().addr();
        let [mine, other] = [ours::<Write>(c"strftime"), theirs::<Write>(c"strftime")].map(|function| {
            let mut text = [0_u8; 400];
            let length = unsafe { function(text.as_mut_ptr().cast(), text.len(), format.as_ptr(), &broken) };
            (length, CStr::from_bytes_until_nul(&text).unwrap().to_owned())
        });
        assert_eq!(mine, other, "{time}");
    }
    let mut broken = Broken::NONE;
    unsafe { theirs::<Break>(c"gmtime_r")(&0, &mut broken) };
    for (room, length) in [(10, 0), (11, 10)] {
        let mut text = [0_u8; 11];
        assert_eq!(
            unsafe { ours::<Write>(c"strftime")(text.as_mut_ptr().cast(), room, c"%F".as_ptr(), &broken) },
            length
        );
    }
}
