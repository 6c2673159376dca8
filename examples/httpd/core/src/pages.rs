//! The pages, which are part of the image.

/// A page that can be fetched.
pub struct Page {
    /// Path in a request.
    pub path: &'static str,
    /// Media type.
    pub media_type: &'static str,
    /// The body of the answer.
    pub body: &'static [u8],
}

const PAGES: [Page; 3] = [
    Page { path: "/", media_type: "text/html; charset=utf-8", body: include_bytes!("pages/index.html") },
    Page { path: "/about.txt", media_type: "text/plain; charset=utf-8", body: include_bytes!("pages/about.txt") },
    Page { path: "/1k.txt", media_type: "text/plain; charset=utf-8", body: &[b'z'; 1024] },
];

/// The page at `path`.
pub fn find(path: &str) -> Option<&'static Page> {
    PAGES.iter().find(|page| page.path == path)
}
