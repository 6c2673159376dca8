//! `math.h`: the crate `libm`, under C's names. `errno` is not set; the result alone shows an error
//! (`math_errhandling` is 0). Of the `long double` functions there is only `frexpl`, which libstdc++
//! wants.

use core::arch::{asm, naked_asm};
use core::ffi::{c_int, c_long};

use crate::export::Export;

pub(crate) const MATH: &[Export] = exports![
    acos,
    acosf,
    acosh,
    acoshf,
    asin,
    asinf,
    asinh,
    asinhf,
    atan,
    atanf,
    atanh,
    atanhf,
    cbrt,
    cbrtf,
    ceil,
    ceilf,
    cos,
    cosf,
    cosh,
    coshf,
    erf,
    erff,
    erfc,
    erfcf,
    exp,
    expf,
    exp2,
    exp2f,
    exp10,
    exp10f,
    expm1,
    expm1f,
    fabs,
    fabsf,
    floor,
    floorf,
    j0,
    j0f,
    j1,
    j1f,
    lgamma,
    lgammaf,
    log,
    logf,
    log10,
    log10f,
    log1p,
    log1pf,
    log2,
    log2f,
    rint,
    rintf,
    round,
    roundf,
    roundeven,
    roundevenf,
    sin,
    sinf,
    sinh,
    sinhf,
    sqrt,
    sqrtf,
    tan,
    tanf,
    tanh,
    tanhf,
    tgamma,
    tgammaf,
    trunc,
    truncf,
    y0,
    y0f,
    y1,
    y1f,
    atan2,
    atan2f,
    copysign,
    copysignf,
    fdim,
    fdimf,
    fmax,
    fmaxf,
    fmin,
    fminf,
    fmod,
    fmodf,
    hypot,
    hypotf,
    nextafter,
    nextafterf,
    pow,
    powf,
    remainder,
    remainderf,
    fma,
    fmaf,
    frexp,
    frexpf,
    frexpl,
    ilogb,
    ilogbf,
    ldexp,
    ldexpf,
    scalbn = ldexp,
    scalbnf = ldexpf,
    scalbln,
    scalblnf,
    logb,
    logbf,
    modf,
    modff,
    remquo,
    remquof,
    sincos,
    sincosf,
    jn,
    jnf,
    yn,
    ynf,
    lgamma_r,
    lgammaf_r,
    gamma = lgamma,
    gammaf = lgammaf,
    pow10 = exp10,
    pow10f = exp10f,
    drem = remainder,
    dremf = remainderf,
    nearbyint = rint,
    nearbyintf = rintf,
    lrint,
    lrintf,
    llrint = lrint,
    llrintf = lrintf,
    lround,
    lroundf,
    llround = lround,
    llroundf = lroundf,
    nan,
    nanf,
    isnan = __isnan,
    isnanf = __isnanf,
    __isnan,
    __isnanf,
    isinf = __isinf,
    isinff = __isinff,
    __isinf,
    __isinff,
    finite = __finite,
    finitef = __finitef,
    __finite,
    __finitef,
    __signbit,
    __signbitf,
    __fpclassify,
    __fpclassifyf,
    __issignaling,
    __issignalingf,
];

pub(crate) const FENV: &[Export] = exports![feclearexcept, fetestexcept, fegetround, fesetround];

/// Functions of one number, and of two, with the names of `libm`.
macro_rules! functions {
    (1: $($name:ident)*; 2: $($pair:ident)*; $type:ident) => {
        $(pub(crate) unsafe extern "C" fn $name(value: $type) -> $type {
            libm::$name(value)
        })*
        $(pub(crate) unsafe extern "C" fn $pair(value: $type, other: $type) -> $type {
            libm::$pair(value, other)
        })*
    };
}

functions! {
    1:
        acos asin asinh atan atanh cbrt ceil cos cosh erf erfc exp exp2 exp10 expm1 fabs floor j0 j1 lgamma log
        log10 log1p log2 rint round roundeven sin sinh sqrt tan tanh tgamma trunc y0 y1;
    2:
        atan2 copysign fdim fmax fmin fmod hypot nextafter pow remainder;
    f64
}

functions! {
    1:
        acosf asinf asinhf atanf atanhf cbrtf ceilf cosf coshf erff erfcf expf exp2f exp10f expm1f fabsf
        floorf j0f j1f lgammaf logf log10f log1pf log2f rintf roundf roundevenf sinf sinhf sqrtf tanf tanhf tgammaf
        truncf y0f y1f;
    2:
        atan2f copysignf fdimf fmaxf fminf fmodf hypotf nextafterf powf remainderf;
    f32
}

// `libm` 0.2.16 takes the logarithm of large negative numbers here.
pub(crate) unsafe extern "C" fn acosh(value: f64) -> f64 {
    if value < 1.0 { f64::NAN } else { libm::acosh(value) }
}

pub(crate) unsafe extern "C" fn acoshf(value: f32) -> f32 {
    if value < 1.0 { f32::NAN } else { libm::acoshf(value) }
}

/// The other functions, once for each type: the name, and that of `libm`'s function where there is
/// one.
macro_rules! others {
    ($type:ident:
        $fma:ident $frexp:ident $ilogb:ident $ldexp:ident $scalbn:ident $scalbln:ident $logb:ident $modf:ident $remquo:ident $sincos:ident
        $jn:ident $yn:ident $lgamma_r:ident $lrint:ident $lround:ident $nan:ident $isnan:ident $isinf:ident $finite:ident $signbit:ident
        $fpclassify:ident $issignaling:ident; $rint:ident $round:ident
    ) => {
        pub(crate) unsafe extern "C" fn $fma(one: $type, other: $type, more: $type) -> $type {
            libm::$fma(one, other, more)
        }

        pub(crate) unsafe extern "C" fn $frexp(value: $type, power: *mut c_int) -> $type {
            let (fraction, exponent) = libm::$frexp(value);
            // SAFETY: as C demands. libm's exponent is undefined for a number without one.
            unsafe { power.write(if value.is_finite() { exponent } else { 0 }) };
            fraction
        }

        pub(crate) unsafe extern "C" fn $ilogb(value: $type) -> c_int {
            match value {
                // FP_ILOGB0, FP_ILOGBNAN
                _ if value == 0.0 || value.is_nan() => c_int::MIN,
                _ => libm::$ilogb(value),
            }
        }

        pub(crate) unsafe extern "C" fn $ldexp(value: $type, power: c_int) -> $type {
            libm::$scalbn(value, power)
        }

        pub(crate) unsafe extern "C" fn $scalbln(value: $type, power: c_long) -> $type {
            libm::$scalbn(value, power.clamp(c_long::from(c_int::MIN), c_long::from(c_int::MAX)) as c_int)
        }

        pub(crate) unsafe extern "C" fn $logb(value: $type) -> $type {
            match value {
                _ if value == 0.0 => -1.0 / value.abs(),
                _ if value.is_nan() => value,
                _ if value.is_infinite() => value.abs(),
                _ => libm::$ilogb(value) as $type,
            }
        }

        pub(crate) unsafe extern "C" fn $modf(value: $type, whole: *mut $type) -> $type {
            let (fraction, integer) = libm::$modf(value);
            // SAFETY: as C demands.
            unsafe { whole.write(integer) };
            if fraction == 0.0 { (0.0 as $type).copysign(value) } else { fraction }
        }

        pub(crate) unsafe extern "C" fn $remquo(value: $type, by: $type, quotient: *mut c_int) -> $type {
            let (remainder, low) = libm::$remquo(value, by);
            // SAFETY: as C demands.
            unsafe { quotient.write(low) };
            remainder
        }

        pub(crate) unsafe extern "C" fn $sincos(value: $type, sine: *mut $type, cosine: *mut $type) {
            let (one, other) = libm::$sincos(value);
            // SAFETY: as C demands.
            unsafe { sine.write(one) };
            // SAFETY: as C demands.
            unsafe { cosine.write(other) };
        }

        pub(crate) unsafe extern "C" fn $jn(order: c_int, value: $type) -> $type {
            libm::$jn(order, value)
        }

        pub(crate) unsafe extern "C" fn $yn(order: c_int, value: $type) -> $type {
            libm::$yn(order, value)
        }

        pub(crate) unsafe extern "C" fn $lgamma_r(value: $type, sign: *mut c_int) -> $type {
            let (result, negative) = libm::$lgamma_r(value);
            // SAFETY: as C demands.
            unsafe { sign.write(negative) };
            result
        }

        pub(crate) unsafe extern "C" fn $lrint(value: $type) -> c_long {
            long(f64::from(libm::$rint(value)))
        }

        pub(crate) unsafe extern "C" fn $lround(value: $type) -> c_long {
            long(f64::from(libm::$round(value)))
        }

        pub(crate) unsafe extern "C" fn $nan(_payload: *const u8) -> $type {
            $type::NAN
        }

        pub(crate) unsafe extern "C" fn $isnan(value: $type) -> c_int {
            c_int::from(value.is_nan())
        }

        pub(crate) unsafe extern "C" fn $isinf(value: $type) -> c_int {
            if value.is_infinite() { if value > 0.0 { 1 } else { -1 } } else { 0 }
        }

        pub(crate) unsafe extern "C" fn $finite(value: $type) -> c_int {
            c_int::from(value.is_finite())
        }

        pub(crate) unsafe extern "C" fn $signbit(value: $type) -> c_int {
            c_int::from(value.is_sign_negative())
        }

        pub(crate) unsafe extern "C" fn $fpclassify(value: $type) -> c_int {
            value.classify() as c_int
        }

        pub(crate) unsafe extern "C" fn $issignaling(value: $type) -> c_int {
            // The first digit of the fraction marks a quiet NaN.
            c_int::from(value.is_nan() && value.to_bits() >> ($type::MANTISSA_DIGITS - 2) & 1 == 0)
        }
    };
}

// `FP_NAN` to `FP_NORMAL` are 0 to 4, and Rust has them in the same order.
const _: () = assert!(core::num::FpCategory::Nan as c_int == 0 && core::num::FpCategory::Normal as c_int == 4);

others! {
    f64:
    fma frexp ilogb ldexp scalbn scalbln logb modf remquo sincos
    jn yn lgamma_r lrint lround nan __isnan __isinf __finite __signbit
    __fpclassify __issignaling; rint round
}

others! {
    f32:
    fmaf frexpf ilogbf ldexpf scalbnf scalblnf logbf modff remquof sincosf
    jnf ynf lgammaf_r lrintf lroundf nanf __isnanf __isinff __finitef __signbitf
    __fpclassifyf __issignalingf; rintf roundf
}

/// A number out of range becomes the smallest one, as in the processor's conversion.
fn long(value: f64) -> c_long {
    if (-9_223_372_036_854_775_808.0..9_223_372_036_854_775_808.0).contains(&value) {
        value as c_long
    } else {
        c_long::MIN
    }
}

/// The exceptions' bits in MXCSR and in `fenv.h` are the same.
const EXCEPTIONS: c_int = 0x3d;

fn control() -> u32 {
    let mut control = 0_u32;
    // SAFETY: stores MXCSR to the variable.
    unsafe { asm!("stmxcsr [{}]", in(reg) &raw mut control, options(nostack)) };
    control
}

pub(crate) unsafe extern "C" fn feclearexcept(exceptions: c_int) -> c_int {
    let control = control() & !((exceptions & EXCEPTIONS) as u32);
    // SAFETY: only flags change; no exception is unmasked.
    unsafe { asm!("ldmxcsr [{}]", in(reg) &raw const control, options(nostack)) };
    0
}

pub(crate) unsafe extern "C" fn fetestexcept(exceptions: c_int) -> c_int {
    control() as c_int & exceptions & EXCEPTIONS
}

/// `FE_TONEAREST`, which the image relies on.
pub(crate) unsafe extern "C" fn fegetround() -> c_int {
    0
}

pub(crate) unsafe extern "C" fn fesetround(mode: c_int) -> c_int {
    c_int::from(mode != 0)
}

/// `long double frexpl(long double x, int *exponent)`. Rust has no such type: the argument is on the
/// stack, the result in a register of the x87.
#[unsafe(naked)]
unsafe extern "C" fn frexpl() {
    naked_asm!(
        "fld tbyte ptr [rsp + 8]",
        "mov dword ptr [rdi], 0",
        // 0, infinity and no number stay as they are: of C0, C2 and C3 others are set than C2 alone
        // (a normal number), or C2 and C3 (a denormal one).
        "fxam",
        "fnstsw ax",
        "and ah, 0x45",
        "cmp ah, 0x04",
        "je 2f",
        "cmp ah, 0x44",
        "jne 3f",
        "2:",
        "fxtract",
        "sub rsp, 8",
        "fxch",
        "fistp dword ptr [rsp]",
        "mov eax, [rsp]",
        "inc eax",
        "mov [rdi], eax",
        // The significand is below 2, and is to be below 1.
        "mov dword ptr [rsp], 0x3f000000",
        "fmul dword ptr [rsp]",
        "add rsp, 8",
        "3:",
        "ret",
    )
}
