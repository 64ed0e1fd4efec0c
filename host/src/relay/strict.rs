//! HTTP/1.1 to the letter, and where each part of a message ends.
//!
//! A request that two programs read differently is how a second request is smuggled past the first of them, and an
//! answer read differently is another's answer. What comes in from either side is therefore looked at as it comes, byte by
//! byte, and only what has one reading goes on: lines end with CR LF and hold no other CR or LF, no field goes on in the next
//! line, one `Content-Length` of digits or one `Transfer-Encoding: chunked` and never both, chunk sizes without extensions, in
//! requests one `Host` and targets of characters that mean the same to all. (What a target and a `Host` say together is looked
//! at in `target`.) Answers say where they end; the end of a connection is none, as it may come too soon.
//!
//! Nothing is kept but the state and the few bytes that decide (RFC 9112 §2.2, §3.2, §4, §5, §6, §7.1, §11.2).

use std::fmt;

/// What is wrong with a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Violation {
    /// Something other than a request line: an empty line before it, spaces too many or too few, control characters.
    RequestLine,
    /// A byte in the target that some take for what it is and others do not: a fragment's `#`, a `\\` (read as `/`),
    /// bytes of no known charset.
    Target,
    /// Neither HTTP/1.1 nor HTTP/1.0; of an answer, not HTTP/1.1.
    Version,
    /// Not three digits after the version of an answer.
    Status,
    /// A CR without LF, or an LF without CR.
    LineEnd,
    /// A field that goes on in the next line.
    ObsoleteFold,
    /// A field's name that is no token, has a space after it, or frames the message for those who take `_` for `-`.
    FieldName,
    /// A control character in a field's value.
    FieldValue,
    /// Not one number of digits alone.
    ContentLength,
    /// Another coding than `chunked`, or it twice, or in HTTP/1.0.
    TransferEncoding,
    /// Two lengths.
    LengthAndEncoding,
    /// An answer that does not say where it ends, or says that something follows where nothing can.
    NoLength,
    /// More fields than there may be.
    Fields,
    /// None in HTTP/1.1, or more than one.
    Host,
    /// CONNECT with a body.
    Connect,
    /// A chunk size that is none, is too large or has an extension.
    ChunkSize,
    /// A chunk that does not end where its size says.
    ChunkEnd,
    /// More requests than may be sent ahead of their answers.
    Pipeline,
    /// A trailer field that would change how the message is framed, routed or understood; or more of them than anybody needs.
    Trailer,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::RequestLine => {
                "the request line is not method, target and version, with one space between them"
            }
            Self::Target => "the target has a byte that has to be written as % and two hex digits",
            Self::Version => "the version is not the one that is spoken here",
            Self::Status => "the status is not three digits, and a space",
            Self::LineEnd => "a line does not end with CR and LF, or has one of them in it",
            Self::ObsoleteFold => "a field goes on in the next line",
            Self::FieldName => {
                "a field's name is not one, or not followed by a colon, or has _ for -"
            }
            Self::FieldValue => "a field's value has a control character",
            Self::ContentLength => "expected one Content-Length, a number of digits",
            Self::TransferEncoding => "expected one Transfer-Encoding, and that chunked",
            Self::LengthAndEncoding => {
                "found Content-Length and Transfer-Encoding, expected one of them"
            }
            Self::NoLength => "no field says where it ends, or one says so where nothing follows",
            Self::Fields => "too many fields",
            Self::Host => "expected one Host",
            Self::Connect => "CONNECT has no body",
            Self::ChunkSize => "a chunk's size is not a hexadecimal number and nothing else",
            Self::ChunkEnd => "a chunk does not end where its size says",
            Self::Pipeline => "too many requests were sent ahead of their answers",
            Self::Trailer => "a trailer field that belongs into the head, or too many of them",
        })
    }
}

/// The fields that decide.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Field {
    Other,
    ContentLength,
    TransferEncoding,
    Host,
}

/// Fields that have no business after a body (RFC 9110 §6.5.1): who merges them into the head reads another message
/// than who does not.
const NO_TRAILERS: [&[u8]; 15] = [
    b"authorization",
    b"cache-control",
    b"connection",
    b"content-encoding",
    b"content-range",
    b"content-type",
    b"cookie",
    b"expect",
    b"keep-alive",
    b"max-forwards",
    b"prefer",
    b"set-cookie",
    b"te",
    b"trailer",
    b"upgrade",
];
/// As much, of all names that begin so.
const NO_TRAILERS_LIKE: [&[u8]; 2] = [b"touchstone", b"inference-header-"];

/// Longest name that decides.
const LONGEST: usize = "transfer-encoding".len();
/// Most hexadecimal digits of a chunk size.
const SIZE_DIGITS: u8 = 15;
/// Most digits of a content length.
const LENGTH_DIGITS: u8 = 18;
/// Most bytes of a message's trailers. (Heads are bounded by who reads them.)
const TRAILERS: usize = 16 << 10;

/// What follows a head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// Nothing: the message ends with its head.
    None,
    /// So many bytes.
    Length(u64),
    /// Chunks.
    Chunked,
}

/// What a head says that has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// What follows it.
    pub framing: Framing,
    /// HTTP/1.1, and not HTTP/1.0.
    pub is_1_1: bool,
    /// Of an answer, from 100 to 999.
    pub status: u16,
}

/// Why some bytes and no more were taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    /// There are no more, or what follows is another part.
    More,
    /// A head ended with the last of them.
    Head(Head),
    /// They are all of a body, without its framing.
    Data,
    /// A message that has a body ended with the last of them.
    End,
    /// What follows breaks the rules.
    Broken(Violation),
}

/// Whose messages they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Requests,
    /// To HEAD: heads alone.
    Answers {
        to_head: bool,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// In a request line, after so many spaces.
    Line {
        spaces: u8,
    },
    /// In a status line, after so many bytes.
    Status {
        at: u8,
    },
    Reason,
    /// After the CR of a first line or field.
    LineFeed,
    /// Where a field, or the end of the head or trailers, begins.
    FieldStart,
    Name,
    Value(Field),
    /// After the CR of the empty line.
    LastFeed,
    /// So many bytes of a body or chunk follow.
    Bytes {
        left: u64,
        chunked: bool,
    },
    /// A head, or a message with a body, has ended, and nobody was told yet.
    HeadEnded(Framing),
    Ended,
    /// The CR and LF after a chunk.
    ChunkCr,
    ChunkLf,
    /// In a chunk size of so many digits.
    Size {
        digits: u8,
        value: u64,
    },
    SizeLf {
        value: u64,
    },
}

/// What was learned of the message that is being read.
#[derive(Debug, Clone, Copy, Default)]
struct Learned {
    /// First eight bytes of the request line, and its last eight, the newest lowest; how many bytes it has, and how many of
    /// them came before its last part.
    first: u64,
    last: u64,
    length: usize,
    before: usize,
    is_1_1: bool,
    status: u16,
    fields: usize,
    hosts: u8,
    content_length: Option<u64>,
    chunked: bool,
}

impl Learned {
    /// How many bytes the last part of the request line has until now.
    fn part(&self) -> usize {
        self.length.saturating_sub(self.before)
    }
}

/// Follows one side of a connection.
#[derive(Debug)]
pub struct Strict {
    kind: Kind,
    state: State,
    head: Learned,
    /// The fields are trailers, and so many bytes of them came.
    trailers: bool,
    trailing: usize,
    name: [u8; LONGEST],
    name_length: usize,
    /// The name has a `_`, which stands as `-` above.
    underscored: bool,
    /// Digits of a content length, or bytes of `chunked`, that were read; and whether the value has ended.
    digits: u8,
    ended: bool,
    /// Most fields of a head.
    fields: usize,
    broken: Option<Violation>,
}

/// Whether each byte may stand in a field's name.
static TOKEN: [bool; 256] = {
    let mut table = [false; 256];
    let marks = b"!#$%&'*+-.^_`|~";
    let mut byte = 0;
    while byte < 256 {
        table[byte] = (byte as u8).is_ascii_alphanumeric();
        byte += 1;
    }
    let mut at = 0;
    while at < marks.len() {
        table[marks[at] as usize] = true;
        at += 1;
    }
    table
};

fn is_token(byte: u8) -> bool {
    TOKEN.get(usize::from(byte)).is_some_and(|is| *is)
}

/// Whether a byte can stand in a request line between its spaces.
fn is_visible(byte: u8) -> bool {
    matches!(byte, 0x21..=0x7e)
}

/// How many bytes at the beginning can stand anywhere in a value. Sixteen at a time, which compilers make one
/// comparison of: most of a head is values.
fn plain(bytes: &[u8]) -> usize {
    let is_plain = |byte: &u8| *byte >= 0x20 && *byte != 0x7f;
    let (chunks, _) = bytes.as_chunks::<16>();
    let all = |chunk: &&[u8; 16]| chunk.iter().fold(true, |all, byte| all & is_plain(byte));
    let whole = chunks.iter().take_while(all).count().saturating_mul(16);
    let rest = bytes.get(whole..).unwrap_or_default();
    whole.saturating_add(rest.iter().take_while(|byte| is_plain(byte)).count())
}

/// How long the line at the beginning is, if all of it is there, it is a field as most are, and none of those that decide. Others
/// are looked at byte by byte.
fn line_that_decides_nothing(bytes: &[u8]) -> usize {
    let name = bytes.iter().take_while(|byte| is_token(**byte)).count();
    // Their names are told by their lengths, however they are written.
    if [0, b"host".len(), b"content-length".len(), LONGEST].contains(&name)
        || bytes.get(name) != Some(&b':')
    {
        return 0;
    }
    let value = bytes.get(name.saturating_add(1)..).unwrap_or_default();
    let length = plain(value);
    let end = length.saturating_add(2);
    match value.get(length..end) {
        Some(b"\r\n") => name.saturating_add(1).saturating_add(end),
        _ => 0,
    }
}

impl Strict {
    /// Follows requests of at most so many fields.
    pub fn requests(fields: usize) -> Self {
        Self::new(Kind::Requests, fields)
    }

    /// Follows the answers to one request: to a HEAD they are heads alone.
    pub fn answers(to_head: bool, fields: usize) -> Self {
        Self::new(Kind::Answers { to_head }, fields)
    }

    fn new(kind: Kind, fields: usize) -> Self {
        let mut strict = Self {
            kind,
            state: State::Reason,
            head: Learned::default(),
            trailers: false,
            trailing: 0,
            name: [0; LONGEST],
            name_length: 0,
            underscored: false,
            digits: 0,
            ended: false,
            fields,
            broken: None,
        };
        strict.state = strict.next_message();
        strict
    }

    /// What was wrong, once something was.
    pub fn broken(&self) -> Option<Violation> {
        self.broken
    }

    /// Looks at the bytes that come next. Gives how many of them are good: all, or those before the one that
    /// breaks the rules. After that nothing is good any more.
    pub fn follow(&mut self, bytes: &[u8]) -> usize {
        let mut at = 0;
        loop {
            let rest = bytes.get(at..).unwrap_or_default();
            let (count, found) = self.next(rest);
            at = at.saturating_add(count);
            match found {
                Found::Broken(_) => return at,
                Found::More if count == rest.len() => return at,
                _ => {}
            }
        }
    }

    /// Takes the bytes that come next up to the end of a part. Gives how many those are, and why no more were taken. What is
    /// left is for the next call.
    pub fn next(&mut self, bytes: &[u8]) -> (usize, Found) {
        let mut at = 0_usize;
        if self.state == State::Ended {
            self.state = self.next_message();
            return (0, Found::End);
        }
        while self.broken.is_none()
            && let Some(mut rest) = bytes.get(at..).filter(|rest| !rest.is_empty())
        {
            if let State::Bytes { left, chunked } = &mut self.state {
                if at > 0 {
                    return (at, Found::More);
                }
                let count = rest.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
                *left = left.saturating_sub(count as u64);
                if *left == 0 {
                    self.state = match chunked {
                        true => State::ChunkCr,
                        false => State::Ended,
                    };
                }
                return (count, Found::Data);
            }
            let trailing = self.trailers;
            if trailing {
                let room = TRAILERS.saturating_sub(self.trailing);
                rest = rest.get(..room).unwrap_or(rest);
            }
            let mut count = self.run(rest);
            if count == 0 {
                let found = rest.first().ok_or(Violation::Trailer);
                match found.and_then(|byte| self.step(*byte)) {
                    Ok(state) => self.state = state,
                    Err(violation) => {
                        self.broken = Some(violation);
                        break;
                    }
                }
                count = 1;
            }
            at = at.saturating_add(count);
            if trailing {
                self.trailing = self.trailing.saturating_add(count);
            }
            if let State::HeadEnded(framing) = self.state {
                let head = Head {
                    framing,
                    is_1_1: self.head.is_1_1,
                    status: self.head.status,
                };
                self.state = match framing {
                    Framing::None => self.next_message(),
                    Framing::Length(left) => State::Bytes {
                        left,
                        chunked: false,
                    },
                    Framing::Chunked => State::Size {
                        digits: 0,
                        value: 0,
                    },
                };
                return (at, Found::Head(head));
            }
            if self.state == State::Ended {
                self.state = self.next_message();
                return (at, Found::End);
            }
        }
        let found = self.broken.map_or(Found::More, Found::Broken);
        (at, found)
    }

    /// Takes bytes that change no state, of which nearly all of a head is. Gives how many.
    fn run(&mut self, bytes: &[u8]) -> usize {
        let up_to = |ends: fn(u8) -> bool| bytes.iter().take_while(|byte| !ends(**byte)).count();
        match self.state {
            State::Value(Field::Other | Field::Host) | State::Reason => plain(bytes),
            State::Line { .. } => {
                let count = up_to(|byte| !is_visible(byte) || matches!(byte, b'#' | b'\\'));
                let run = bytes.get(..count).unwrap_or_default();
                // Of a target nothing but its end decides.
                let (first, rest) = run.split_at_checked(8).unwrap_or((run, &[]));
                first.iter().for_each(|byte| self.line_byte(*byte));
                let (middle, last) = rest.split_at(rest.len().saturating_sub(8));
                self.head.length = self.head.length.saturating_add(middle.len());
                last.iter().for_each(|byte| self.line_byte(*byte));
                count
            }
            State::FieldStart if !self.trailers => {
                let count = line_that_decides_nothing(bytes);
                if count > 0 && self.head.fields < self.fields {
                    self.head.fields = self.head.fields.saturating_add(1);
                    return count;
                }
                0
            }
            State::Name => {
                let count = up_to(|byte| !is_token(byte));
                let run = bytes.get(..count).unwrap_or_default();
                // A longer name decides nothing, except after a body.
                let whole = self.name_length.saturating_add(count);
                if self.trailers || whole <= LONGEST {
                    run.iter().for_each(|byte| self.name_byte(*byte));
                } else {
                    self.name_length = whole;
                }
                count
            }
            _ => 0,
        }
    }

    fn next_message(&mut self) -> State {
        self.head = Learned::default();
        self.trailers = false;
        self.trailing = 0;
        match self.kind {
            Kind::Requests => State::Line { spaces: 0 },
            Kind::Answers { .. } => State::Status { at: 0 },
        }
    }

    fn step(&mut self, byte: u8) -> Result<State, Violation> {
        Ok(match self.state {
            State::Line { spaces } => match byte {
                b'\r' if spaces == 2 => {
                    let version = &self.head.last.to_be_bytes();
                    self.head.is_1_1 = match (self.head.part(), version) {
                        (8, b"HTTP/1.1") => true,
                        (8, b"HTTP/1.0") => false,
                        _ => return Err(Violation::Version),
                    };
                    State::LineFeed
                }
                b' ' if spaces < 2 && self.head.part() > 0 => {
                    self.line_byte(byte);
                    self.head.before = self.head.length;
                    State::Line { spaces: spaces + 1 }
                }
                b'#' | b'\\' | 0x80..=0xff if spaces == 1 => return Err(Violation::Target),
                // `run` has taken nearly all of those.
                _ if is_visible(byte) => {
                    self.line_byte(byte);
                    State::Line { spaces }
                }
                b'\n' => return Err(Violation::LineEnd),
                _ => return Err(Violation::RequestLine),
            },
            State::Status { at } => self.status_byte(at, byte)?,
            State::Reason => match byte {
                b'\r' => State::LineFeed,
                b'\n' => return Err(Violation::LineEnd),
                b'\t' | 0x20..=0x7e | 0x80..=0xff => State::Reason,
                _ => return Err(Violation::Status),
            },
            State::LineFeed => match byte {
                b'\n' => State::FieldStart,
                _ => return Err(Violation::LineEnd),
            },
            State::FieldStart => match byte {
                b'\r' => State::LastFeed,
                b' ' | b'\t' => return Err(Violation::ObsoleteFold),
                b'\n' => return Err(Violation::LineEnd),
                _ if is_token(byte) => {
                    self.head.fields = self.head.fields.saturating_add(1);
                    if self.head.fields > self.fields {
                        return Err(Violation::Fields);
                    }
                    self.name_length = 0;
                    self.underscored = false;
                    self.name_byte(byte);
                    State::Name
                }
                _ => return Err(Violation::FieldName),
            },
            State::Name => match byte {
                b':' => State::Value(self.field()?),
                _ if is_token(byte) => {
                    self.name_byte(byte);
                    State::Name
                }
                _ => return Err(Violation::FieldName),
            },
            State::Value(field) => match byte {
                b'\r' => {
                    self.value_end(field)?;
                    State::LineFeed
                }
                b'\n' => return Err(Violation::LineEnd),
                b'\t' | 0x20..=0x7e | 0x80..=0xff => {
                    self.value_byte(field, byte)?;
                    State::Value(field)
                }
                _ => return Err(Violation::FieldValue),
            },
            State::LastFeed => match byte {
                b'\n' if self.trailers => State::Ended,
                b'\n' => State::HeadEnded(match self.kind {
                    Kind::Requests => self.request_framing()?,
                    Kind::Answers { to_head } => self.answer_framing(to_head)?,
                }),
                _ => return Err(Violation::LineEnd),
            },
            // `next` has taken those.
            State::Bytes { .. } | State::HeadEnded(_) | State::Ended => self.state,
            State::ChunkCr => match byte {
                b'\r' => State::ChunkLf,
                _ => return Err(Violation::ChunkEnd),
            },
            State::ChunkLf => match byte {
                b'\n' => State::Size {
                    digits: 0,
                    value: 0,
                },
                _ => return Err(Violation::ChunkEnd),
            },
            State::Size { digits, value } => match byte {
                b'\r' if digits > 0 => State::SizeLf { value },
                _ if digits < SIZE_DIGITS => {
                    let digit = char::from(byte).to_digit(16).ok_or(Violation::ChunkSize)?;
                    State::Size {
                        digits: digits + 1,
                        value: (value << 4) | u64::from(digit),
                    }
                }
                _ => return Err(Violation::ChunkSize),
            },
            State::SizeLf { value } => match (byte, value) {
                (b'\n', 0) => {
                    self.trailers = true;
                    self.head.fields = 0;
                    State::FieldStart
                }
                (b'\n', left) => State::Bytes {
                    left,
                    chunked: true,
                },
                _ => return Err(Violation::ChunkSize),
            },
        })
    }

    fn line_byte(&mut self, byte: u8) {
        let head = &mut self.head;
        head.last = (head.last << 8) | u64::from(byte);
        if head.length < 8 {
            head.first = head.last;
        }
        head.length = head.length.saturating_add(1);
    }

    fn name_byte(&mut self, byte: u8) {
        self.underscored |= byte == b'_';
        if let Some(place) = self.name.get_mut(self.name_length) {
            *place = match byte {
                b'_' => b'-',
                _ => byte.to_ascii_lowercase(),
            };
        }
        self.name_length = self.name_length.saturating_add(1);
    }

    /// A field's name has ended.
    fn field(&mut self) -> Result<Field, Violation> {
        let field = match self.name.get(..self.name_length) {
            Some(b"content-length") => Field::ContentLength,
            Some(b"transfer-encoding") => Field::TransferEncoding,
            Some(b"host") => Field::Host,
            _ => Field::Other,
        };
        if self.trailers && (field != Field::Other || self.is_no_trailer()) {
            return Err(Violation::Trailer);
        }
        if self.underscored && field != Field::Other {
            return Err(Violation::FieldName);
        }
        self.digits = 0;
        self.ended = false;
        let head = &mut self.head;
        match field {
            Field::ContentLength if head.content_length.is_some() => {
                return Err(Violation::ContentLength);
            }
            Field::ContentLength => head.content_length = Some(0),
            Field::TransferEncoding if head.chunked || !head.is_1_1 => {
                return Err(Violation::TransferEncoding);
            }
            Field::TransferEncoding => head.chunked = true,
            Field::Host if head.hosts > 0 => return Err(Violation::Host),
            Field::Host => head.hosts = 1,
            Field::Other => {}
        }
        if head.chunked && head.content_length.is_some() {
            return Err(Violation::LengthAndEncoding);
        }
        Ok(field)
    }

    fn is_no_trailer(&self) -> bool {
        let whole = self.name.get(..self.name_length);
        let begin = self.name.get(..self.name_length.min(LONGEST));
        let begin = begin.unwrap_or_default();
        NO_TRAILERS.iter().any(|name| whole == Some(name))
            || NO_TRAILERS_LIKE.iter().any(|like| begin.starts_with(like))
    }

    fn value_byte(&mut self, field: Field, byte: u8) -> Result<(), Violation> {
        let violation = match field {
            Field::ContentLength => Violation::ContentLength,
            Field::TransferEncoding => Violation::TransferEncoding,
            Field::Other | Field::Host => return Ok(()),
        };
        // White space around a value is none of it.
        if matches!(byte, b' ' | b'\t') {
            self.ended = self.digits > 0;
            return Ok(());
        }
        if self.ended {
            return Err(violation);
        }
        if field == Field::ContentLength {
            let digit = char::from(byte).to_digit(10).ok_or(violation)?;
            if self.digits >= LENGTH_DIGITS {
                return Err(violation);
            }
            let value = self.head.content_length.unwrap_or(0);
            self.head.content_length = Some(value * 10 + u64::from(digit));
        } else {
            let expected = b"chunked".get(usize::from(self.digits));
            if expected != Some(&byte.to_ascii_lowercase()) {
                return Err(violation);
            }
        }
        self.digits += 1;
        Ok(())
    }

    fn value_end(&self, field: Field) -> Result<(), Violation> {
        match field {
            Field::ContentLength if self.digits == 0 => Err(Violation::ContentLength),
            Field::TransferEncoding if usize::from(self.digits) != b"chunked".len() => {
                Err(Violation::TransferEncoding)
            }
            _ => Ok(()),
        }
    }

    /// What follows the head of a request.
    fn request_framing(&self) -> Result<Framing, Violation> {
        let head = &self.head;
        if head.is_1_1 && head.hosts == 0 {
            return Err(Violation::Host);
        }
        if &head.first.to_be_bytes() == b"CONNECT "
            && (head.chunked || head.content_length.is_some())
        {
            return Err(Violation::Connect);
        }
        Ok(self.framing().unwrap_or(Framing::None))
    }

    /// What follows the head of an answer (RFC 9112 §6.3).
    fn answer_framing(&self, to_head: bool) -> Result<Framing, Violation> {
        let said = self.framing();
        match self.head.status {
            // Who sees a length here waits for a body, and who knows the rule does not.
            100..200 | 204 if said.is_some_and(|said| said != Framing::None) => {
                Err(Violation::NoLength)
            }
            100..200 | 204 | 304 => Ok(Framing::None),
            _ if to_head => Ok(Framing::None),
            _ => said.ok_or(Violation::NoLength),
        }
    }

    fn framing(&self) -> Option<Framing> {
        match self.head.content_length {
            _ if self.head.chunked => Some(Framing::Chunked),
            Some(0) => Some(Framing::None),
            length => length.map(Framing::Length),
        }
    }

    /// A byte of `HTTP/1.1 200 `.
    fn status_byte(&mut self, at: u8, byte: u8) -> Result<State, Violation> {
        let version = b"HTTP/1.1 ";
        let digits = version.len()..version.len() + 3;
        let at = usize::from(at);
        if let Some(expected) = version.get(at) {
            if byte != *expected {
                return Err(Violation::Version);
            }
        } else if digits.contains(&at) {
            let digit = char::from(byte).to_digit(10).ok_or(Violation::Status)?;
            self.head.status = self.head.status * 10 + digit as u16;
        } else {
            self.head.is_1_1 = true;
            return match (byte, self.head.status) {
                (b' ', 100..) => Ok(State::Reason),
                _ => Err(Violation::Status),
            };
        }
        Ok(State::Status { at: at as u8 + 1 })
    }
}

#[cfg(test)]
// By its path: the fuzz targets take this file alone, from elsewhere.
#[path = "strict/tests.rs"]
mod tests;
