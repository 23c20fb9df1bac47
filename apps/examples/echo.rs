//! Echo over TCP (RFC 862) on a tap device: `cargo run --release --example echo`, then from another
//! terminal `nc 10.77.0.2 7`.

use std::io;

use barewire::{AsyncTcpStream, Barewire, Core};

async fn serve(core: Core) {
    let Ok(listener) = core.tcp_listen(([10, 77, 0, 2], 7).into(), 1024) else { return };
    while let Ok((stream, _peer)) = listener.accept().await {
        core.spawn(async move {
            // An error is the peer's way to leave; dropping the stream closes it.
            let _ = echo(stream).await;
        });
    }
}

/// Sends packets back as they lie in memory: no byte is copied.
async fn echo(stream: AsyncTcpStream) -> io::Result<()> {
    while let Some(data) = stream.read_owned(usize::MAX).await? {
        stream.write_owned(data).await?;
    }
    stream.close().await
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let (device, address) = ("tap:bw0".parse()?, "10.77.0.2/24".parse()?);
    let bw = Barewire::builder().device(device).address(address).start()?;
    bw.on_core(serve)?;
    io::stdin().read_line(&mut String::new())?;
    bw.stop().check()?;
    Ok(())
}
