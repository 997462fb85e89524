//! What the server writes of its own: the control line of a delivery and the header block of a failed request.
//!
//! Finds: a control line longer than was reserved for it (which would move bytes that the kernel is sending), fields
//! that a reader would not get back.

#![no_main]

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use ringmain::wire::Widths;
use ringmain::wire::frame::Delivery;
use ringmain::wire::header::write_no_responders;

#[derive(Debug, Arbitrary)]
struct Fields<'a> {
    subject: &'a [u8],
    sid: &'a [u8],
    reply: Option<&'a [u8]>,
    header_len: Option<u32>,
    size: u32,
    header_width: u8,
    size_width: u8,
}

/// Sizes have one to nine digits, as `PUB` and `HPUB` allow.
const SIZE_MAX: u32 = 999_999_999;

fuzz_target!(|fields: Fields| {
    let size = (fields.size % (SIZE_MAX + 1)) as usize;
    let header_len = fields.header_len.map(|len| len as usize % (size + 1));
    let widths = Widths { header: fields.header_width % 10, size: fields.size_width % 10 };
    let delivery =
        Delivery { subject: fields.subject, sid: fields.sid, reply: fields.reply, header_len, size, widths };
    let mut head = Vec::new();
    delivery.write_head(&mut head);
    assert!(head.len() <= delivery.head_len_max());

    let mut expected = Vec::new();
    expected.extend(if header_len.is_some() { &b"HMSG "[..] } else { b"MSG " });
    for part in [Some(fields.subject), Some(fields.sid), fields.reply].into_iter().flatten() {
        expected.extend(part);
        expected.push(b' ');
    }
    if let Some(len) = header_len {
        expected.extend(format!("{len:0width$} ", width = usize::from(widths.header)).bytes());
    }
    expected.extend(format!("{size:0width$}\r\n", width = usize::from(widths.size)).bytes());
    assert_eq!(head, expected);

    let mut block = b"before".to_vec();
    write_no_responders(&mut block, fields.subject);
    let block = block.strip_prefix(b"before").expect("what stood there stays");
    let lines = block.strip_prefix(b"NATS/1.0 503\r\nNats-Subject: ").expect("status and key");
    assert_eq!(lines.strip_suffix(b"\r\n\r\n"), Some(fields.subject));
});
