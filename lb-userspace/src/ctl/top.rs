//! `lbctl top`: virtual servers, nodes, packets and VIPs as they are now, with rates, on a terminal. What is shown is made by
//! [`model`] and drawn by [`draw`], both without a terminal; here are the terminal, the keys and the questions to lbd.

mod draw;
mod model;
mod sample;

use std::{
    io::{self, IsTerminal},
    thread,
    time::{Duration, Instant},
};

use ratatui::{
    Terminal,
    backend::TestBackend,
    crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers},
};

use self::{
    model::{Key, Model, Pane},
    sample::Sample,
};
use super::{args, client::Client, failure::Failure, output::Output};

/// How long keys are waited for at a time: after this a window that was resized is drawn anew at the latest.
const KEYS: Duration = Duration::from_millis(250);

/// Width of a picture that is printed where there is no terminal.
const WIDTH: u16 = 100;

pub(super) fn run(client: &Client, output: &Output, arguments: &args::Top) -> Result<(), Failure> {
    if output.is_json() {
        return Err(Failure::Usage("top has no JSON: use lbctl stats -o json".to_owned()));
    }
    if arguments.once {
        return once(client, output, arguments.interval);
    }
    if !(io::stdout().is_terminal() && io::stdin().is_terminal()) {
        return Err(Failure::Usage("top needs a terminal: use --once, or lbctl stats --watch".to_owned()));
    }
    // Before the screen is taken: an lbd that does not run is told on it as it was.
    let model = Model::new(Sample::take(client)?);
    // Also puts a hook in place that gives the screen back when this program fails.
    let mut terminal = ratatui::try_init()?;
    let ended = look(&mut terminal, client, model, arguments.interval);
    ratatui::try_restore()?;
    ended
}

/// Two looks, and all panes below each other.
fn once(client: &Client, output: &Output, interval: Duration) -> Result<(), Failure> {
    let mut model = Model::new(Sample::take(client)?);
    thread::sleep(interval);
    model.take(Ok(Sample::take(client)?));
    let width = ratatui::crossterm::terminal::size().map_or(WIDTH, |(columns, _)| columns.max(80));
    let mut text = String::new();
    for pane in Pane::ALL {
        model.show(pane);
        let height = model.height();
        // Drawing into memory cannot fail.
        let Ok(mut terminal) = Terminal::new(TestBackend::new(width, height));
        let Ok(_) = terminal.draw(|frame| draw::all(frame, &model));
        let buffer = terminal.backend().buffer();
        for row in buffer.content.chunks(usize::from(width)) {
            let line: String = row.iter().map(ratatui::buffer::Cell::symbol).collect();
            text.push_str(line.trim_end());
            text.push('\n');
        }
    }
    Ok(output.print(&text)?)
}

fn look(
    terminal: &mut ratatui::DefaultTerminal,
    client: &Client,
    mut model: Model,
    interval: Duration,
) -> Result<(), Failure> {
    let mut next = Instant::now() + interval;
    loop {
        terminal.draw(|frame| draw::all(frame, &model))?;
        let wait = next.saturating_duration_since(Instant::now()).min(KEYS);
        if event::poll(wait)?
            && let Event::Key(pressed) = event::read()?
            && let Some(key) = key(pressed)
            && model.press(key)
        {
            return Ok(());
        }
        if Instant::now() >= next {
            // An lbd that does not answer is told in the picture; it may be starting.
            model.take(Sample::take(client).map_err(|failure| failure.to_string()));
            next = Instant::now() + interval;
        }
    }
}

/// What a key means.
#[expect(clippy::wildcard_enum_match_arm, reason = "there are many keys, and few of them mean something")]
fn key(pressed: KeyEvent) -> Option<Key> {
    if pressed.kind == KeyEventKind::Release {
        return None;
    }
    if pressed.modifiers.contains(KeyModifiers::CONTROL) {
        return (pressed.code == KeyCode::Char('c')).then_some(Key::Quit);
    }
    Some(match pressed.code {
        KeyCode::Char('q') | KeyCode::Esc => Key::Quit,
        KeyCode::Tab | KeyCode::Right => Key::Next,
        KeyCode::BackTab | KeyCode::Left => Key::Previous,
        KeyCode::Char(digit @ '1'..='9') => Key::Pane(usize::from(digit as u8 - b'1')),
        KeyCode::Char('s') => Key::Sort,
        KeyCode::Char('p' | ' ') => Key::Pause,
        KeyCode::Char('?' | 'h') => Key::Help,
        KeyCode::Down | KeyCode::Char('j') => Key::Scroll(1),
        KeyCode::Up | KeyCode::Char('k') => Key::Scroll(-1),
        KeyCode::PageDown => Key::Scroll(10),
        KeyCode::PageUp => Key::Scroll(-10),
        KeyCode::Home => Key::Scroll(isize::MIN),
        _ => return None,
    })
}

#[cfg(test)]
mod tests;
