//! The search of a stack for calls of given code: a walk along frame pointers for as long as they
//! can be trusted, then a look at every word from there on.
//!
//! The image is built with frame pointers; other code may use that register for anything. The
//! frames from the top of a stack to the first one that was called from outside the image's code
//! are therefore exact, and the words that such frames have released do not count.

use core::ops::Range;

/// The kind of code that a return address lies in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    /// Code that keeps frame pointers.
    Framed,
    /// Code that may keep none, or an interruption. The words above can be anything.
    Unknown,
    /// The code that the search is for.
    Wanted,
}

/// Number of frames of one thread after which the walk ends.
const MAX_FRAMES: usize = 4096;

/// A stack that does not change during the search.
pub struct Stack<'a, R, C> {
    /// The address ranges in use, the innermost first: calls lead from each range to the one before
    /// it.
    pub parts: &'a [Range<u64>],
    /// The word at an address that is in a part and a multiple of 8.
    pub read: R,
    /// The kind of code at an address.
    pub code: C,
}

impl<R: Fn(u64) -> u64, C: Fn(u64) -> Code> Stack<'_, R, C> {
    /// True if wanted code waits for a call to return, or may do so. The call will return to
    /// `caller` with `frame` as the frame pointer; the words from `at` on were there before the
    /// call.
    pub fn holds(&self, mut caller: u64, mut frame: u64, mut at: u64) -> bool {
        for _ in 0..MAX_FRAMES {
            match (self.code)(caller) {
                Code::Wanted => return true,
                Code::Unknown => return self.holds_word(at),
                // The first frame of a thread.
                Code::Framed if frame == 0 => return false,
                Code::Framed => {}
            }
            if !self.may_follow(frame, at) {
                return self.holds_word(at);
            }
            (caller, at) = ((self.read)(frame + 8), frame + 16);
            frame = (self.read)(frame);
        }
        true
    }

    /// True if a frame can be at `frame` when the last one ended at `at`.
    fn may_follow(&self, frame: u64, at: u64) -> bool {
        let Some(part) = self.part(at) else { return false };
        let inside = |part: &Range<u64>| part.start <= frame && frame < part.end && part.end - frame >= 16;
        let here = inside(&self.parts[part]) && at <= frame;
        frame.is_multiple_of(8) && (here || self.parts[part + 1..].iter().any(inside))
    }

    fn part(&self, at: u64) -> Option<usize> {
        self.parts.iter().position(|part| part.start <= at && at <= part.end)
    }

    /// True if any word from `at` on is an address in wanted code.
    fn holds_word(&self, at: u64) -> bool {
        // If `at` is in no part, nothing is known, and the whole stack counts.
        let first = self.part(at);
        let rest = self.parts.iter().enumerate().skip(first.unwrap_or(0));
        rest.flat_map(|(place, part)| {
            let start = if Some(place) == first { at } else { part.start };
            (start.next_multiple_of(8)..part.end & !7).step_by(8)
        })
        .any(|address| (self.code)((self.read)(address)) == Code::Wanted)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::vec::Vec;

    use super::*;

    const IMAGE: u64 = 0x10_000;
    const OTHER: u64 = 0x20_000;
    const OLD: u64 = 0x30_000;

    fn holds(parts: &[Range<u64>], words: &[(u64, u64)], caller: u64, frame: u64, at: u64) -> bool {
        let words: BTreeMap<u64, u64> = words.iter().copied().collect();
        let read = |address| {
            assert!(parts.iter().any(|part| part.contains(&address) && part.end - address >= 8), "{address:#x}");
            words.get(&address).copied().unwrap_or(0)
        };
        let code = |address: u64| match address & !0xfff {
            IMAGE => Code::Framed,
            OLD => Code::Wanted,
            _ => Code::Unknown,
        };
        Stack { parts, read, code }.holds(caller, frame, at)
    }

    /// The answer for a stack in one part, from 0x1000 to 0x2000.
    fn holds_in_one(words: &[(u64, u64)], caller: u64, frame: u64, at: u64) -> bool {
        holds(core::slice::from_ref(&(0x1000..0x2000)), words, caller, frame, at)
    }

    #[test]
    fn what_frames_have_left_behind_does_not_count() {
        let frames = [(0x1100, 0x1200), (0x1108, IMAGE + 1), (0x1200, 0), (0x1208, IMAGE + 2)];
        let mut words = Vec::from(frames);
        words.extend([(0x1010, OLD), (0x1180, OLD), (0x1300, OLD)]);
        assert!(!holds_in_one(&words, IMAGE, 0x1100, 0x1000));
        // A frame that returns to it does.
        words.push((0x1208, OLD + 3));
        assert!(holds_in_one(&words, IMAGE, 0x1100, 0x1000));
        assert!(holds_in_one(&words, OLD, 0x1100, 0x1000));
    }

    #[test]
    fn behind_code_without_frames_every_word_counts() {
        let frames = [(0x1100, 0x77), (0x1108, OTHER), (0x10f0, OLD)];
        assert!(!holds_in_one(&frames, IMAGE, 0x1100, 0x1000));
        for at in [0x1110, 0x1118, 0x1ff8] {
            let mut words = Vec::from(frames);
            words.push((at, OLD + 5));
            assert!(holds_in_one(&words, IMAGE, 0x1100, 0x1000), "{at:#x}");
        }
    }

    #[test]
    fn a_frame_pointer_that_cannot_be_one_is_not_followed() {
        for frame in [0x1104, 0xff8, 0x2000, 0x1ff8, u64::MAX, 0x1008] {
            let words = [(0x1800, OLD)];
            assert!(holds_in_one(&words, IMAGE, frame, 0x1010), "{frame:#x}");
            assert!(!holds_in_one(&[(0x1000, OLD)], IMAGE, frame, 0x1010), "{frame:#x}");
        }
        // A cycle of frames comes to an end.
        let words = [(0x1100, 0x1100), (0x1108, IMAGE)];
        assert!(!holds_in_one(&words, IMAGE, 0x1100, 0x1000));
    }

    #[test]
    fn calls_lead_from_the_outer_part_to_the_inner_one() {
        let (inner, outer) = (0x5000..0x6000, 0x1000..0x2000);
        let parts = [inner, outer];
        let frames = [(0x5100, 0x1100), (0x5108, IMAGE), (0x1100, 0), (0x1108, IMAGE)];
        let with = |at: u64, value: u64| {
            let mut words = Vec::from(frames);
            words.push((at, value));
            holds(&parts, &words, IMAGE, 0x5100, 0x5000)
        };
        assert!(!with(0x1800, OLD));
        assert!(with(0x1108, OLD));
        // An interruption: the rest of both counts, but nothing further in.
        let with = |at: u64| {
            let words = [(0x5100, 0x1100), (0x5108, OTHER), (at, OLD)];
            holds(&parts, &words, IMAGE, 0x5100, 0x5000)
        };
        assert!(with(0x5110) && with(0x5ff8) && with(0x1000) && with(0x1ff8));
        assert!(!with(0x5080));
        // Once the walk is in the outer part, nothing of the inner one is read.
        let words = [(0x5100, 0x1100), (0x5108, IMAGE), (0x1100, 7), (0x1108, OTHER), (0x5ff8, OLD), (0x1080, OLD)];
        assert!(!holds(&parts, &words, IMAGE, 0x5100, 0x5000));
    }
}
