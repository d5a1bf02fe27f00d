//! When this process is asked to end: SIGTERM from a supervisor, SIGINT from a terminal.

use tokio::signal::unix::{SignalKind, signal};

/// Waits until the process is asked to end.
///
/// # Errors
/// When the handlers cannot be installed.
pub async fn requested() -> std::io::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}
