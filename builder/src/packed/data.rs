//! The contents of files: blocks that are compressed by all processors and written in the order of the tree.

use std::collections::{HashMap, VecDeque};
use std::io::{self, Seek, Write};
use std::num::NonZero;
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, Scope};

use super::PackedError;
use super::metadata::Output;
use crate::hash;
use crate::tree::{Content, Kind, Tree, TreePath};

/// Bytes of a block before compression, and its logarithm.
pub(super) const BLOCK_LOG: u16 = 17;
pub(super) const BLOCK: usize = 1 << BLOCK_LOG;
/// In the length of a block: it is stored as it is.
const STORED: u32 = 1 << 24;
/// The number of the fragment of a file that has none.
pub(super) const NO_FRAGMENT: u32 = u32::MAX;

/// Where the bytes of a file are.
#[derive(Clone, Debug)]
pub(super) struct FileData {
    pub(super) len: u64,
    /// Where its first stored block begins; `u64::MAX` if there is none.
    pub(super) start: u64,
    /// Lengths of its blocks as they are stored; 0 is a block of zeros that is not stored.
    pub(super) blocks: Vec<u32>,
    /// Bytes that are not stored.
    pub(super) holes: u64,
    /// Which fragment holds it instead, and from which byte on.
    pub(super) fragment: u32,
    pub(super) fragment_offset: u32,
}

/// All that was written of contents.
pub(super) struct Data<'a> {
    files: Vec<FileData>,
    /// Equal files are stored once.
    by_path: HashMap<&'a TreePath, usize>,
    /// `(start, length)` of each block of fragments.
    pub(super) fragments: Vec<(u64, u32)>,
}

impl Data<'_> {
    pub(super) fn of(&self, path: &TreePath) -> Option<&FileData> {
        self.files.get(*self.by_path.get(path)?)
    }
}

/// Writes the contents of every regular file of the tree. At most two blocks for each thread are in memory.
pub(super) fn write<'a, W: Write + Seek>(
    tree: &'a Tree,
    level: i32,
    threads: NonZero<usize>,
    out: &mut Output<'_, W>,
) -> Result<Data<'a>, PackedError> {
    thread::scope(|scope| {
        let mut writer = Writer {
            out,
            workers: Workers::start(scope, level, threads),
            under_way: VecDeque::new(),
            data: Data { files: Vec::new(), by_path: HashMap::new(), fragments: Vec::new() },
            fragment: Vec::with_capacity(BLOCK),
        };
        let mut twins = Twins::find(tree);
        for (path, node) in tree {
            let Kind::File(content) = &node.kind else { continue };
            let failed = |source| PackedError::Read { path: path.clone(), source };
            let next = writer.data.files.len();
            let file = twins.first(content, next).map_err(failed)?;
            writer.data.by_path.insert(path, file);
            if file == next {
                writer.file(path, content)?;
            }
        }
        writer.finish()
    })
}

/// Files that may be equal: those whose length is not unique are told apart by their digests.
struct Twins {
    lengths: HashMap<u64, usize>,
    known: HashMap<(u64, [u8; 32]), usize>,
}

impl Twins {
    fn find(tree: &Tree) -> Self {
        let mut lengths = HashMap::new();
        for (_, node) in tree {
            if let Kind::File(content) = &node.kind {
                *lengths.entry(content.len()).or_insert(0) += 1;
            }
        }
        Self { lengths, known: HashMap::new() }
    }

    /// Returns the number of the first file with these bytes, which is `next` if there was none.
    fn first(&mut self, content: &Content, next: usize) -> io::Result<usize> {
        let len = content.len();
        if self.lengths.get(&len).is_none_or(|files| *files < 2) {
            return Ok(next);
        }
        let mut sink =
            hash::HashingWriter { out: io::sink(), hasher: hash::Hasher::default(), written: 0 };
        io::copy(&mut content.reader(), &mut sink)?;
        Ok(*self.known.entry((len, *sink.hasher.finish().as_bytes())).or_insert(next))
    }
}

/// What a finished block belongs to.
enum Owner {
    Block { file: usize, block: usize },
    Fragment(usize),
}

struct Writer<'w, 'a, 'o, W> {
    out: &'w mut Output<'o, W>,
    workers: Workers,
    /// Blocks that are being compressed, in the order in which they are written.
    under_way: VecDeque<(Owner, Receiver<io::Result<Packed>>)>,
    data: Data<'a>,
    /// Small files, until they fill a block.
    fragment: Vec<u8>,
}

impl<'a, W: Write + Seek> Writer<'_, 'a, '_, W> {
    fn file(&mut self, path: &TreePath, content: &Content) -> Result<(), PackedError> {
        let failed = |source| PackedError::Read { path: path.clone(), source };
        let len = content.len();
        let mut file = FileData {
            len,
            start: u64::MAX,
            blocks: Vec::new(),
            holes: 0,
            fragment: NO_FRAGMENT,
            fragment_offset: 0,
        };
        let number = self.data.files.len();
        if len < BLOCK as u64 {
            let bytes = content.read_all(BLOCK as u64).map_err(failed)?;
            if self.fragment.len() + bytes.len() > BLOCK {
                self.end_fragment()?;
            }
            if !bytes.is_empty() {
                file.fragment = count(self.data.fragments.len())?;
                file.fragment_offset = count(self.fragment.len())?;
                self.fragment.extend_from_slice(&bytes);
            }
            self.data.files.push(file);
            return Ok(());
        }
        let blocks =
            usize::try_from(len.div_ceil(BLOCK as u64)).map_err(|_| PackedError::TooMany)?;
        file.blocks = vec![0; blocks];
        self.data.files.push(file);
        let mut pos = 0;
        for block in 0..blocks {
            let size = usize::try_from(len - pos).map_or(BLOCK, |left| left.min(BLOCK));
            let mut bytes = vec![0; size];
            read_exact(content, &mut bytes, pos).map_err(failed)?;
            pos += size as u64;
            if bytes.iter().all(|byte| *byte == 0) {
                self.data.files[number].holes += size as u64;
            } else {
                self.submit(Owner::Block { file: number, block }, bytes)?;
            }
        }
        Ok(())
    }

    fn end_fragment(&mut self) -> Result<(), PackedError> {
        let bytes = std::mem::replace(&mut self.fragment, Vec::with_capacity(BLOCK));
        // Its place is taken now, for the files that are in it know its number.
        let number = self.data.fragments.len();
        self.data.fragments.push((0, 0));
        self.submit(Owner::Fragment(number), bytes)
    }

    fn submit(&mut self, owner: Owner, bytes: Vec<u8>) -> Result<(), PackedError> {
        if self.under_way.len() >= self.workers.most {
            self.settle_one()?;
        }
        self.under_way.push_back((owner, self.workers.pack(bytes)?));
        Ok(())
    }

    /// Writes the oldest block that is under way.
    fn settle_one(&mut self) -> Result<(), PackedError> {
        let Some((owner, packed)) = self.under_way.pop_front() else { return Ok(()) };
        let packed = packed.recv().map_err(|_| PackedError::Compress(broken()))?;
        let packed = packed.map_err(PackedError::Compress)?;
        let start = self.out.written();
        let mark = if packed.stored { STORED } else { 0 };
        let len = count(packed.bytes.len())? | mark;
        self.out.write(&packed.bytes)?;
        match owner {
            Owner::Block { file, block } => {
                let file = &mut self.data.files[file];
                file.start = file.start.min(start);
                file.blocks[block] = len;
            }
            Owner::Fragment(number) => self.data.fragments[number] = (start, len),
        }
        Ok(())
    }

    fn finish(mut self) -> Result<Data<'a>, PackedError> {
        if !self.fragment.is_empty() {
            self.end_fragment()?;
        }
        while !self.under_way.is_empty() {
            self.settle_one()?;
        }
        Ok(self.data)
    }
}

fn count(n: usize) -> Result<u32, PackedError> {
    u32::try_from(n).map_err(|_| PackedError::TooMany)
}

fn broken() -> io::Error {
    io::Error::other("a thread that compresses has ended")
}

fn read_exact(content: &Content, mut buffer: &mut [u8], mut pos: u64) -> io::Result<()> {
    while !buffer.is_empty() {
        let n = content.read_at(buffer, pos)?;
        if n == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        pos += n as u64;
        buffer = &mut buffer[n..];
    }
    Ok(())
}

/// A block as it is stored.
struct Packed {
    bytes: Vec<u8>,
    /// It did not become smaller.
    stored: bool,
}

type Job = (Vec<u8>, Sender<io::Result<Packed>>);

/// Threads that compress blocks. Each block is compressed by itself, so their number changes no byte.
struct Workers {
    jobs: Sender<Job>,
    /// How many blocks may be under way.
    most: usize,
}

impl Workers {
    fn start<'s>(scope: &'s Scope<'s, '_>, level: i32, threads: NonZero<usize>) -> Self {
        let (jobs, queue) = mpsc::channel::<Job>();
        let queue = Arc::new(Mutex::new(queue));
        for _ in 0..threads.get() {
            let queue = Arc::clone(&queue);
            scope.spawn(move || work(&queue, level));
        }
        Self { jobs, most: 2 * threads.get() }
    }

    fn pack(&self, bytes: Vec<u8>) -> Result<Receiver<io::Result<Packed>>, PackedError> {
        let (done, result) = mpsc::channel();
        self.jobs.send((bytes, done)).map_err(|_| PackedError::Compress(broken()))?;
        Ok(result)
    }
}

fn work(queue: &Mutex<Receiver<Job>>, level: i32) {
    let mut compressor = zstd::bulk::Compressor::new(level);
    loop {
        let job = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok((bytes, done)) = job else { return };
        let packed = match &mut compressor {
            // Only what becomes shorter is of use.
            Ok(compressor) => compressor.compress(&bytes).map(|packed| {
                if packed.len() < bytes.len() {
                    Packed { bytes: packed, stored: false }
                } else {
                    Packed { bytes, stored: true }
                }
            }),
            Err(error) => Err(io::Error::new(error.kind(), error.to_string())),
        };
        // Nobody waits any more once another block has failed.
        drop(done.send(packed));
    }
}
