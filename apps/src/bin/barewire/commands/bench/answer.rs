//! The server's side of one connection.

use std::time::Instant;

use super::half::Half;
use super::hello::{ACK, GO, HELLO_LEN, Hello, Mode};
use super::link::Link;
use super::tally::{Failure, Recorder};
use super::work::fill;
use super::{BLOCK_BYTES, GRACE};
use crate::cli::Direction;

/// Does what the client asks for, to the end of the connection.
pub(super) async fn answer<L: Link>(link: &L, to: &Recorder) {
    let begin = Instant::now();
    let outcome = understand(link, to).await;
    let mut tally = to.lock();
    tally.ran(begin, Instant::now());
    if let Err(failure) = outcome {
        tracing::debug!(%failure, "connection aborted");
        tally.fail(failure);
    }
}

/// Reads what the client wants, and does it. The client has a short time to say so, and then as
/// long as it has said.
async fn understand<L: Link>(link: &L, to: &Recorder) -> Result<(), Failure> {
    let mut bytes = [0; HELLO_LEN];
    link.within(GRACE, fill(link, &mut bytes)).await??;
    let hello = Hello::decode(&bytes)?;
    to.lock().connections += 1;
    link.within(hello.time() + GRACE, serve(link, &hello, to)).await?
}

async fn serve<L: Link>(link: &L, hello: &Hello, to: &Recorder) -> Result<(), Failure> {
    if hello.mode != Mode::Once {
        link.write_all(&ACK).await?;
        fill(link, &mut [0; GO.len()]).await?;
    }
    let (until, owned) = (Instant::now() + hello.time(), hello.owned);
    let send = Half::Send { until, owned, then_end: false };
    let discard = Half::Discard { owned };
    match hello.mode {
        Mode::Stream(Direction::Up) => {
            discard.run(link, to).await?;
            link.end()?;
        }
        Mode::Stream(Direction::Down) => {
            send.run(link, to).await?;
            link.end()?;
            discard.run(link, to).await?;
        }
        Mode::Stream(Direction::Both) => {
            let (sent, received) = link.duplex(send, discard, to).await;
            sent.and(received)?;
            link.end()?;
        }
        Mode::Requests => {
            answer_requests(link, hello, to).await?;
            link.end()?;
        }
        Mode::Once => answer_once(link, hello, to).await?,
    }
    Ok(())
}

/// Answers each request once it is whole, until the client ends its stream.
async fn answer_requests<L: Link>(link: &L, hello: &Hello, to: &Recorder) -> Result<(), Failure> {
    let (size, answer) = (hello.size as usize, hello.answer as usize);
    let mut buffer = vec![0; BLOCK_BYTES];
    // Answers to requests that came together leave together.
    let batch = (BLOCK_BYTES / answer).max(1);
    let answers = vec![0; batch * answer];
    let mut begun = 0;
    loop {
        let read = link.read(&mut buffer).await?;
        if read == 0 {
            break;
        }
        begun += read;
        let whole = begun / size;
        begun %= size;
        let mut left = whole;
        while left > 0 {
            let now = left.min(batch);
            link.write_all(&answers[..now * answer]).await?;
            left -= now;
        }
        let mut tally = to.lock();
        tally.received_bytes += read as u64;
        tally.sent_bytes += (whole * answer) as u64;
        tally.exchanges += whole as u64;
    }
    if begun == 0 { Ok(()) } else { Err(Failure::Ended) }
}

/// Takes the one request, answers it and ends the stream first.
async fn answer_once<L: Link>(link: &L, hello: &Hello, to: &Recorder) -> Result<(), Failure> {
    let mut request = vec![0; hello.size as usize];
    fill(link, &mut request).await?;
    let mut answer = ACK.to_vec();
    answer.resize(ACK.len() + hello.answer as usize, 0);
    link.write_all(&answer).await?;
    link.end()?;
    {
        let mut tally = to.lock();
        tally.received_bytes += u64::from(hello.size);
        tally.sent_bytes += u64::from(hello.answer);
        tally.exchanges += 1;
    }
    match link.read(&mut request).await? {
        0 => Ok(()),
        more => Err(Failure::Unanswered { sent: 1 + more as u64, answered: 1 }),
    }
}
