//! The table of names.

use core::ffi::CStr;

/// A function or a variable that an object may import.
#[derive(Clone, Copy)]
pub struct Export {
    /// The name in C.
    pub name: &'static CStr,
    /// The address of the function or variable.
    pub address: *const (),
}

// SAFETY: the address is only a number here; nothing is accessed through it.
unsafe impl Sync for Export {}
// SAFETY: as above.
unsafe impl Send for Export {}

/// `name`: the function of that name. `name = address`: another address under that name.
macro_rules! exports {
    (@ $name:ident) => { $name as *const () };
    (@ $name:ident = $address:expr) => { $address as *const () };
    ($($name:ident $(= $address:expr)?),* $(,)?) => {
        &[$($crate::export::Export {
            name: $crate::export::name(concat!(stringify!($name), "\0")),
            address: exports!(@ $name $(= $address)?),
        }),*]
    };
}

pub(crate) const fn name(with_nul: &'static str) -> &'static CStr {
    match CStr::from_bytes_with_nul(with_nul.as_bytes()) {
        Ok(name) => name,
        Err(_) => panic!("a name holds no NUL"),
    }
}

/// The exports by the header that declares them.
pub static HEADERS: &[(&str, &[Export])] = &PARTS;

const PARTS: [(&str, &[Export]); 21] = [
    ("assert.h, compiler", crate::exit::ASSERT),
    ("ctype.h", crate::character::CTYPE),
    ("errno.h", crate::error::ERRNO),
    ("fcntl.h, unistd.h, sys/*.h", crate::file::FILES),
    ("fenv.h", crate::math::FENV),
    ("locale.h", crate::locale::LOCALE),
    ("libintl.h, iconv.h", crate::locale::TEXTS),
    ("math.h", crate::math::MATH),
    ("pthread.h, sched.h", crate::thread::PTHREAD),
    ("setjmp.h", crate::jump::SETJMP),
    ("signal.h", crate::misc::SIGNAL),
    ("stdio.h", crate::stdio::STDIO),
    ("stdio.h: scanf", crate::scan::SCANF),
    ("stdlib.h: memory", crate::memory::MEMORY),
    ("stdlib.h: numbers", crate::number::NUMBERS),
    ("stdlib.h: order, environment, chance", crate::misc::STDLIB),
    ("stdlib.h: the end", crate::exit::EXIT),
    ("string.h, strings.h", crate::string::STRING),
    ("time.h, sys/time.h", crate::time::TIME),
    ("wchar.h, wctype.h", crate::wide::WIDE),
    ("glibc's own", crate::number::PRIVATE),
];

const COUNT: usize = {
    let (mut count, mut part) = (0, 0);
    while part < PARTS.len() {
        count += PARTS[part].1.len();
        part += 1;
    }
    count
};

/// All names that an object may import, sorted.
pub static EXPORTS: &[Export] = &sorted();

/// The address of a name.
pub fn find(name: &CStr) -> Option<*const ()> {
    let index = EXPORTS.binary_search_by(|export| export.name.cmp(name)).ok()?;
    Some(EXPORTS[index].address)
}

// Shell's sort, because a constant function cannot have mutable references to parts.
const fn sorted() -> [Export; COUNT] {
    let mut all = [PARTS[0].1[0]; COUNT];
    let (mut count, mut part) = (0, 0);
    while part < PARTS.len() {
        let mut index = 0;
        while index < PARTS[part].1.len() {
            all[count] = PARTS[part].1[index];
            count += 1;
            index += 1;
        }
        part += 1;
    }
    let mut gap = COUNT;
    while gap > 1 {
        gap = gap * 5 / 11;
        if gap == 0 {
            gap = 1;
        }
        let mut index = gap;
        while index < COUNT {
            let export = all[index];
            let mut place = index;
            while place >= gap && before(export.name, all[place - gap].name) {
                all[place] = all[place - gap];
                place -= gap;
            }
            all[place] = export;
            index += 1;
        }
    }
    all
}

const fn before(one: &CStr, other: &CStr) -> bool {
    let (one, other) = (one.to_bytes_with_nul(), other.to_bytes_with_nul());
    let mut index = 0;
    while one[index] == other[index] && one[index] != 0 {
        index += 1;
    }
    one[index] < other[index]
}
