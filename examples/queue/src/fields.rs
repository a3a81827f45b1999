//! Reads and writes the fields of records, little endian, within bounds.

use crate::error::Wrong;

pub(crate) const VERSION: u8 = 1;

/// Bytes of a record that are not read yet.
pub(crate) struct Fields<'a>(pub(crate) &'a [u8]);

impl<'a> Fields<'a> {
    pub(crate) fn take(&mut self, what: &'static str, count: usize) -> Result<&'a [u8], Wrong> {
        let Some((taken, rest)) = self.0.split_at_checked(count) else {
            return Err(Wrong {
                what,
                expected: count as u64,
                found: self.0.len() as u64,
            });
        };
        self.0 = rest;
        Ok(taken)
    }

    pub(crate) fn u8(&mut self, what: &'static str) -> Result<u8, Wrong> {
        Ok(self.take(what, 1)?[0])
    }

    pub(crate) fn u16(&mut self, what: &'static str) -> Result<u16, Wrong> {
        let bytes = self.take(what, 2)?;
        Ok(u16::from_le_bytes(bytes.try_into().expect("two bytes")))
    }

    pub(crate) fn u32(&mut self, what: &'static str) -> Result<u32, Wrong> {
        let bytes = self.take(what, 4)?;
        Ok(u32::from_le_bytes(bytes.try_into().expect("four bytes")))
    }

    pub(crate) fn u64(&mut self, what: &'static str) -> Result<u64, Wrong> {
        let bytes = self.take(what, 8)?;
        Ok(u64::from_le_bytes(bytes.try_into().expect("eight bytes")))
    }

    /// A number of things, at most `max`.
    pub(crate) fn count(&mut self, what: &'static str, max: usize) -> Result<usize, Wrong> {
        let count = self.u32(what)?;
        if count as usize > max {
            return Err(Wrong {
                what,
                expected: max as u64,
                found: count.into(),
            });
        }
        Ok(count as usize)
    }

    pub(crate) fn flag(&mut self, what: &'static str) -> Result<bool, Wrong> {
        match self.u8(what)? {
            0 => Ok(false),
            1 => Ok(true),
            found => Err(Wrong {
                what,
                expected: 1,
                found: found.into(),
            }),
        }
    }

    /// A key, or that there is none.
    pub(crate) fn key(&mut self, max: usize) -> Result<Option<&'a str>, Wrong> {
        let is_there = self.flag("whether there is a key")?;
        let bytes = usize::from(self.u16("bytes of a key")?);
        if bytes > max || !is_there && bytes > 0 {
            return Err(Wrong {
                what: "bytes of a key",
                expected: if is_there { max as u64 } else { 0 },
                found: bytes as u64,
            });
        }
        let key = str::from_utf8(self.take("bytes of a key", bytes)?).map_err(|error| Wrong {
            what: "bytes of a key that are UTF-8",
            expected: bytes as u64,
            found: error.valid_up_to() as u64,
        })?;
        Ok(is_there.then_some(key))
    }

    pub(crate) fn version(&mut self) -> Result<(), Wrong> {
        match self.u8("version of a record")? {
            VERSION => Ok(()),
            found => Err(Wrong {
                what: "version of a record",
                expected: VERSION.into(),
                found: found.into(),
            }),
        }
    }

    pub(crate) fn end(&self) -> Result<(), Wrong> {
        if self.0.is_empty() {
            return Ok(());
        }
        Err(Wrong {
            what: "bytes behind a record's last field",
            expected: 0,
            found: self.0.len() as u64,
        })
    }
}

pub(crate) fn put_key(out: &mut Vec<u8>, key: Option<&str>) {
    out.push(key.is_some().into());
    let key = key.unwrap_or_default();
    let bytes = u16::try_from(key.len()).expect("keys are checked before");
    out.extend_from_slice(&bytes.to_le_bytes());
    out.extend_from_slice(key.as_bytes());
}
