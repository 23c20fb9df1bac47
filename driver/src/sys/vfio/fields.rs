//! Arguments of requests: structures as fields at offsets, in the machine's byte order.

use std::os::fd::RawFd;

/// A structure of the kernel's, as bytes. Reads beyond its end give zero, as from a kernel that
/// filled in less; writes beyond it are a bug of the caller's.
#[derive(Debug)]
pub(super) struct Fields(Vec<u8>);

impl Fields {
    /// `len` zeroed bytes whose first field is their number: `argsz` in VFIO's structures, `size`
    /// in iommufd's.
    pub(super) fn sized(len: usize) -> Fields {
        let mut fields = Fields(vec![0; len]);
        fields.set_u32(0, len as u32);
        fields
    }

    /// `len` zeroed bytes.
    pub(super) fn zeroed(len: usize) -> Fields {
        Fields(vec![0; len])
    }

    /// One field of 32 bits and nothing else.
    pub(super) fn descriptor(fd: RawFd) -> Fields {
        Fields(fd.to_ne_bytes().to_vec())
    }

    /// Sets 32 bits.
    pub(super) fn set_u32(&mut self, at: usize, value: u32) {
        self.0[at..at + 4].copy_from_slice(&value.to_ne_bytes());
    }

    /// Sets a descriptor: always 32 bits, signed.
    pub(super) fn set_fd(&mut self, at: usize, fd: RawFd) {
        self.0[at..at + 4].copy_from_slice(&fd.to_ne_bytes());
    }

    /// Sets 64 bits.
    pub(super) fn set_u64(&mut self, at: usize, value: u64) {
        self.0[at..at + 8].copy_from_slice(&value.to_ne_bytes());
    }

    fn get<const N: usize>(&self, at: usize) -> [u8; N] {
        let field = at.checked_add(N).and_then(|end| self.0.get(at..end));
        field.and_then(|field| field.try_into().ok()).unwrap_or([0; N])
    }

    /// 16 bits.
    pub(super) fn u16(&self, at: usize) -> u16 {
        u16::from_ne_bytes(self.get(at))
    }

    /// 32 bits.
    pub(super) fn u32(&self, at: usize) -> u32 {
        u32::from_ne_bytes(self.get(at))
    }

    /// 64 bits.
    pub(super) fn u64(&self, at: usize) -> u64 {
        u64::from_ne_bytes(self.get(at))
    }

    /// Bytes in the structure.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Where the structure lies.
    pub(super) fn as_mut_ptr(&mut self) -> *mut u8 {
        self.0.as_mut_ptr()
    }
}

/// What a request takes. Only this module's functions can make one.
#[derive(Debug)]
pub(crate) struct Argument<'a>(pub(super) Form<'a>);

/// The kinds of [`Argument`].
#[derive(Debug)]
pub(super) enum Form<'a> {
    /// Nothing.
    None,
    /// A number, by value.
    Value(u32),
    /// A structure, which the kernel may change.
    Fields(&'a mut Fields),
}

impl Argument<'_> {
    /// No argument.
    pub(super) const NONE: Argument<'static> = Argument(Form::None);

    /// A number.
    pub(super) fn value(value: u32) -> Argument<'static> {
        Argument(Form::Value(value))
    }
}

impl<'a> From<&'a mut Fields> for Argument<'a> {
    fn from(fields: &'a mut Fields) -> Argument<'a> {
        Argument(Form::Fields(fields))
    }
}
