//! Allocator for the packages: blocks whose sizes are powers of two, with a free list for each size.
//!
//! std's allocator is a twentieth of the whole module and suits programs whose blocks have all sizes and live long.
//! Here texts are short-lived. A list for each size reuses them at once, costs two dozen instructions, and wastes at
//! most half of a block. Blocks are never joined or split; the memory stays at the peak use of each size.

#![allow(unsafe_code)]

use std::alloc::{GlobalAlloc, Layout};
use std::arch::wasm32;
use std::cell::UnsafeCell;

#[global_allocator]
static ALLOCATOR: Blocks = Blocks(UnsafeCell::new(State { free: [0; 32], next: 0, end: 0 }));

/// Smallest block, as a power of two: 16 bytes, which is also the alignment of every block.
const SMALLEST: u32 = 4;
const PAGE: usize = 64 * 1024;
/// Fewest pages to grow by, because wasm2js copies the whole memory whenever it grows.
const GROW_PAGES: usize = 8;

struct State {
    /// First free block of each power of two. A free block begins with the address of the next.
    free: [usize; 32],
    /// Memory taken from the system and not used for a block yet: `next..end`.
    next: usize,
    end: usize,
}

struct Blocks(UnsafeCell<State>);

// SAFETY: WebAssembly without threads.
unsafe impl Sync for Blocks {}

/// Returns the power of two that holds `size`.
fn class(size: usize) -> u32 {
    usize::BITS - (size.max(1 << SMALLEST) - 1).leading_zeros()
}

impl State {
    fn cut(&mut self, class: u32) -> usize {
        let size = 1usize << class;
        if size > self.end - self.next {
            let pages = size.div_ceil(PAGE).max(GROW_PAGES);
            let old = wasm32::memory_grow(0, pages);
            if old == usize::MAX {
                return 0;
            }
            // The rest of the last piece is wasted, unless the new one continues it.
            if old * PAGE != self.end {
                self.next = old * PAGE;
            }
            self.end = (old + pages) * PAGE;
        }
        let block = self.next;
        self.next += size;
        block
    }
}

// SAFETY: a block is given out by `cut` once and afterwards only when it is on a list, which it leaves; blocks do not
// overlap, are as large as their class, and begin at multiples of 16, because all sizes and pages are such multiples.
unsafe impl GlobalAlloc for Blocks {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // No type in here asks for more than 16.
        if layout.align() > 1 << SMALLEST {
            return std::ptr::null_mut();
        }
        let class = class(layout.size());
        // SAFETY: no thread but this one, and no call in here leads back here.
        let state = unsafe { &mut *self.0.get() };
        let free = state.free[(class & 31) as usize];
        if free == 0 {
            return state.cut(class) as *mut u8;
        }
        // SAFETY: a free block begins with the address of the next.
        state.free[(class & 31) as usize] = unsafe { *(free as *const usize) };
        free as *mut u8
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        let class = class(layout.size());
        // SAFETY: as above.
        let state = unsafe { &mut *self.0.get() };
        // SAFETY: the block has at least 16 bytes and is not in use any more.
        unsafe { *(block.cast::<usize>()) = state.free[(class & 31) as usize] };
        state.free[(class & 31) as usize] = block as usize;
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        if class(size) == class(layout.size()) {
            return block;
        }
        // SAFETY: the caller's promise.
        let wanted = unsafe { Layout::from_size_align_unchecked(size, layout.align()) };
        // SAFETY: as for any caller.
        let moved = unsafe { self.alloc(wanted) };
        if !moved.is_null() {
            // SAFETY: both blocks hold so many bytes, and they are not the same one.
            unsafe { std::ptr::copy_nonoverlapping(block, moved, layout.size().min(size)) };
            // SAFETY: the caller's promise.
            unsafe { self.dealloc(block, layout) };
        }
        moved
    }
}
