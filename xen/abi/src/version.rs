//! `public/version.h`: Xen's version and features.

open_enum! {
    /// An operation of `xen_version`, `XENVER_*`.
    pub struct XenVersionOp: u32 {
        /// Major number in bits 16 to 31, minor in 0 to 15.
        VERSION = 0;
        /// The third part of the version, as [`Extraversion`].
        EXTRAVERSION = 1;
        COMPILE_INFO = 2;
        CAPABILITIES = 3;
        CHANGESET = 4;
        PLATFORM_PARAMETERS = 5;
        /// 32 features at a time, as [`FeatureInfo`].
        GET_FEATURES = 6;
        PAGESIZE = 7;
        /// The UUID that the tools gave this domain.
        GUEST_HANDLE = 8;
        COMMANDLINE = 9;
        BUILD_ID = 10;
    }
}

/// The third part of Xen's version, such as `.5`, padded with NULs: `xen_extraversion_t`.
pub type Extraversion = [u8; 16];

/// Asks for features, `struct xen_feature_info`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FeatureInfo {
    /// Index of the group of 32 features, below
    /// [`XENFEAT_NR_SUBMAPS`](crate::features::XENFEAT_NR_SUBMAPS).
    pub submap_idx: u32,
    /// Out: a bit per feature.
    pub submap: u32,
}
assert_layout!(FeatureInfo, 8, submap_idx: 0, submap: 4);
