//! Ctrl-C and SIGTERM, held back while something must still be put in order.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use anyhow::{Context as _, Result, ensure};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::flag;

/// While one of these lives, the signals end nothing: [`Interrupt::asked`] tells of them instead.
pub(crate) struct Interrupt {
    signals: &'static Signals,
}

impl Interrupt {
    pub(crate) fn hold() -> Result<Self> {
        let signals = Signals::shared()?;
        signals.holders.fetch_add(1, Ordering::SeqCst);
        signals.may_die.store(false, Ordering::SeqCst);
        Ok(Self { signals })
    }

    /// Whether somebody wants us to end.
    pub(crate) fn asked(&self) -> bool {
        self.signals.asked.load(Ordering::SeqCst)
    }

    /// Fails when somebody wants us to end.
    pub(crate) fn check(&self) -> Result<()> {
        ensure!(!self.asked(), "interrupted");
        Ok(())
    }
}

impl Drop for Interrupt {
    fn drop(&mut self) {
        if self.signals.holders.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.signals.may_die.store(true, Ordering::SeqCst);
        }
    }
}

/// Installed once, since a handler cannot be taken away again.
struct Signals {
    asked: Arc<AtomicBool>,
    may_die: Arc<AtomicBool>,
    holders: AtomicUsize,
}

impl Signals {
    fn shared() -> Result<&'static Self> {
        static SHARED: OnceLock<Signals> = OnceLock::new();
        if SHARED.get().is_none() {
            let signals = Self::install().context("cannot listen for signals")?;
            let _ = SHARED.set(signals);
        }
        SHARED.get().context("cannot listen for signals")
    }

    fn install() -> std::io::Result<Self> {
        let asked = Arc::new(AtomicBool::new(false));
        let may_die = Arc::new(AtomicBool::new(true));
        for signal in [SIGINT, SIGTERM, SIGHUP] {
            flag::register_conditional_default(signal, Arc::clone(&may_die))?;
            flag::register(signal, Arc::clone(&asked))?;
        }
        Ok(Self { asked, may_die, holders: AtomicUsize::new(0) })
    }
}
