//! Rows, measured in turns: a busy moment of the machine hurts all of them alike.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

/// Times one turn: how long that many operations took, and how many they were.
type Turn<'a> = Box<dyn Fn(Duration) -> (Duration, u64) + Sync + 'a>;

/// Something that is measured.
pub struct Row<'a> {
    name: &'static str,
    turn: Turn<'a>,
}

impl<'a> Row<'a> {
    /// What it is called.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// One operation, again and again.
    pub fn new(name: &'static str, operation: impl Fn() + Send + Sync + 'a) -> Row<'a> {
        Row::batch(name, 16, || (), move |(), _| operation())
    }

    /// `operation` on what `prepare` makes, for each of `0..count`; what is prepared is not timed.
    pub fn batch<T>(
        name: &'static str,
        count: usize,
        prepare: impl Fn() -> T + Send + Sync + 'a,
        operation: impl Fn(&T, usize) + Send + Sync + 'a,
    ) -> Row<'a> {
        let turn = move |limit: Duration| {
            let (mut spent, mut done) = (Duration::ZERO, 0);
            while spent < limit {
                let prepared = prepare();
                let start = Instant::now();
                for n in 0..count {
                    operation(&prepared, n);
                    done += 1;
                    // A batch that takes long ends with the turn.
                    if n % 16 == 15 && spent + start.elapsed() >= limit {
                        break;
                    }
                }
                spent += start.elapsed();
            }
            (spent, done)
        };
        Row {
            name,
            turn: Box::new(turn),
        }
    }
}

/// Turns of each row.
const TURNS: u32 = 12;

/// Every row on one thread and on all: microseconds for one operation on one thread, the fastest turn and the middle one, and
/// how many a second all threads manage.
pub fn compare(rows: Vec<Row<'_>>, threads: usize, seconds: f64) -> Value {
    let turn = Duration::from_secs_f64(seconds / f64::from(TURNS));
    for row in &rows {
        (row.turn)(turn / 4);
    }
    let mut one = vec![Vec::new(); rows.len()];
    let mut all = vec![Vec::new(); rows.len()];
    for _ in 0..TURNS {
        for (row, times) in rows.iter().zip(&mut one) {
            let (spent, done) = (row.turn)(turn);
            times.push(spent.as_secs_f64() * 1e6 / done as f64);
        }
        for (row, rates) in rows.iter().zip(&mut all) {
            rates.push(at_once(row, threads, turn));
        }
    }
    let figures = rows.iter().zip(one.iter_mut().zip(&mut all));
    let figures = figures.map(|(row, (times, rates))| {
        times.sort_by(f64::total_cmp);
        rates.sort_by(f64::total_cmp);
        let figures = json!({
            "us": times.first(),
            "us_middle": times.get(times.len() / 2),
            "per_second": rates.last(),
            "per_second_middle": rates.get(rates.len() / 2),
        });
        (row.name.to_owned(), figures)
    });
    Value::Object(figures.collect())
}

/// Operations a second of this many threads.
fn at_once(row: &Row<'_>, threads: usize, turn: Duration) -> f64 {
    let rate = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                let (spent, done) = (row.turn)(turn);
                let own = done as f64 / spent.as_secs_f64();
                rate.fetch_add(own as u64, Ordering::Relaxed);
            });
        }
    });
    rate.into_inner() as f64
}
