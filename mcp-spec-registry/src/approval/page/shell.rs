//! What all pages have in common.

use axum::{
    http::StatusCode,
    response::{Html, IntoResponse, Response},
};
use maud::{DOCTYPE, Markup, html};

use crate::approval::view::{Piece, Prose, Sentence};

/// The stylesheet, the only thing a page loads.
pub(super) const STYLE: &str = include_str!("style.css");

/// A page with its title and, once signed in, who looks at it.
pub(super) fn page(title: &str, viewer: Option<&str>, main: &Markup) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (title) " · approvals" }
                link rel="stylesheet" href="/style.css";
            }
            body {
                a.skip href="#main" { "Skip to the content" }
                header.bar {
                    nav aria-label="Pages" {
                        a.brand href="/" { "Approvals" }
                        @if viewer.is_some() {
                            a href="/" { "Queue" }
                            a href="/history" { "History" }
                        }
                    }
                    @if let Some(viewer) = viewer {
                        form method="post" action="/sign-out" {
                            span { (Prose::of(viewer).as_str()) " looks" }
                            button.quiet type="submit" { "Sign out" }
                        }
                    }
                }
                main #main tabindex="-1" { (main) }
            }
        }
    }
}

/// A page as an answer.
pub(super) fn answer(status: StatusCode, markup: Markup) -> Response {
    (status, Html(markup.into_string())).into_response()
}

/// A sentence of ours; machine fields stand apart from our words.
pub(super) fn sentence(sentence: &Sentence) -> Markup {
    html! {
        @for piece in sentence.pieces() {
            @match piece {
                Piece::Words(words) => (words),
                Piece::Code(code) => code { (code.as_str()) },
            }
        }
    }
}

/// Text beyond this is put where the reader can fold it; it is never cut.
pub(super) const LONG_TEXT: usize = 1_200;

/// Somebody's words that are not ours, with a rule at their left and whose they are.
pub(super) fn words_of(who: &str, prose: &Prose) -> Markup {
    quoted("theirs", who, prose)
}

/// A human's reason: set apart from our words, and from an agent's.
pub(super) fn reason_of(who: &str, prose: &Prose) -> Markup {
    quoted("theirs human", who, prose)
}

fn quoted(class: &str, who: &str, prose: &Prose) -> Markup {
    let text = html! { p.text { (prose.as_str()) } };
    html! {
        blockquote class=(class) {
            @if prose.as_str().len() > LONG_TEXT {
                details open {
                    summary { (who) " wrote " (prose.as_str().chars().count()) " characters" }
                    (text)
                }
            } @else {
                (text)
                cite { (who) }
            }
        }
    }
}

/// Machine text: one line stays in the sentence, more become a block whose lines wrap and never run out of sight.
pub(super) fn machine(text: &str) -> Markup {
    let lines = text.lines().count();
    html! {
        @if text.len() > LONG_TEXT || lines > 24 {
            details.block open {
                summary { (lines) " lines, " (text.len()) " characters" }
                pre { code { (text) } }
            }
        } @else if lines > 1 {
            pre { code { (text) } }
        } @else {
            code { (text) }
        }
    }
}
