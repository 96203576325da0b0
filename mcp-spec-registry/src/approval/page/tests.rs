//! The page from outside, request by request; each refusal has its positive control.

use axum::{
    body::Body,
    extract::connect_info::MockConnectInfo,
    http::{Method, Request},
};
use http_body_util::BodyExt;
use tower::ServiceExt;

use super::*;
use crate::{
    approval::fixture::{APPROVER, Fixture, SECRET},
    run::RunState,
};

const HOST: &str = "localhost:4100";
const ORIGIN: &str = "http://localhost:4100";

/// A browser: it keeps the cookie it was given.
struct Browser {
    router: Router,
    cookie: Option<String>,
}

struct Page {
    status: StatusCode,
    headers: HeaderMap,
    body: String,
}

fn router_of(registry: &Registry) -> Router {
    let address = SocketAddr::from(([127, 0, 0, 1], 4100));
    router(registry.clone(), address)
        .layer(MockConnectInfo(SocketAddr::from(([127, 0, 0, 1], 50_000))))
}

impl Browser {
    fn new(registry: &Registry) -> Self {
        Self {
            router: router_of(registry),
            cookie: None,
        }
    }

    async fn signed_in(registry: &Registry) -> anyhow::Result<Self> {
        let mut browser = Self::new(registry);
        let page = browser
            .post(
                "/sign-in",
                &[("name", APPROVER), ("secret", SECRET), ("next", "/")],
            )
            .await?;
        anyhow::ensure!(
            page.status == StatusCode::SEE_OTHER,
            "{}: {}",
            page.status,
            page.body
        );
        Ok(browser)
    }

    async fn get(&mut self, path: &str) -> anyhow::Result<Page> {
        self.send(Request::get(path).header("host", HOST), "").await
    }

    async fn post(&mut self, path: &str, fields: &[(&str, &str)]) -> anyhow::Result<Page> {
        let request = Request::post(path)
            .header("host", HOST)
            .header("origin", ORIGIN)
            .header("content-type", "application/x-www-form-urlencoded");
        self.send(request, &form(fields)).await
    }

    async fn send(
        &mut self,
        request: axum::http::request::Builder,
        body: &str,
    ) -> anyhow::Result<Page> {
        let request = match &self.cookie {
            Some(cookie) => request.header("cookie", cookie),
            None => request,
        };
        let request = request.body(Body::from(body.to_owned()))?;
        let response = self.router.clone().oneshot(request).await?;
        let (parts, body) = response.into_parts();
        if let Some(cookie) = parts.headers.get("set-cookie") {
            self.cookie = cookie.to_str()?.split(';').next().map(str::to_owned);
        }
        let body = String::from_utf8(body.collect().await?.to_bytes().to_vec())?;
        Ok(Page {
            status: parts.status,
            headers: parts.headers,
            body,
        })
    }
}

fn form(fields: &[(&str, &str)]) -> String {
    let escape = |text: &str| {
        let digit = |value: u8| char::from(b"0123456789ABCDEF"[usize::from(value)]);
        text.bytes()
            .flat_map(|byte| ['%', digit(byte >> 4), digit(byte & 15)])
            .collect::<String>()
    };
    let pairs: Vec<String> = fields
        .iter()
        .map(|(name, value)| format!("{}={}", escape(name), escape(value)))
        .collect();
    pairs.join("&")
}

/// The fields of a decision as the form of the checkpoint's page sends them.
fn fields<'a>(verdict: &'a str, code: &'a str, shown: &'a str) -> Vec<(&'a str, &'a str)> {
    vec![
        ("verdict", verdict),
        ("reason", "because"),
        ("code", code),
        ("shown", shown),
        ("approver", APPROVER),
        ("secret", SECRET),
    ]
}

#[tokio::test]
async fn a_human_signs_in_reads_and_approves() -> anyhow::Result<()> {
    let (fixture, waiting) = Fixture::waiting()?;
    let id = &waiting.checkpoint.checkpoint_id;
    let code = fixture.registry.checkpoint_file(id)?.code;
    let mut browser = Browser::signed_in(&fixture.registry).await?;
    let queue = browser.get("/").await?;
    assert!(queue.body.contains(&format!("/c/{id}")), "{}", queue.body);
    let page = browser.get(&format!("/c/{id}")).await?;
    assert_eq!(page.status, StatusCode::OK);
    assert!(page.body.contains("Approve revision 1"));
    assert!(page.body.contains("cannot be undone"));
    let plan_ends = page.body.find("The plan exactly as it was submitted");
    assert!(
        page.body.find(&code) > plan_ends,
        "the code stands before the end of the plan"
    );
    assert_eq!(page.body.matches(&code).count(), 1);

    let shown = waiting.plan_digest.to_string();
    let receipt = browser
        .post(
            &format!("/c/{id}/decide"),
            &fields("approve", &code, &shown),
        )
        .await?;
    assert_eq!(receipt.status, StatusCode::OK, "{}", receipt.body);
    assert!(receipt.body.contains("approved") && receipt.body.contains("audit head"));
    assert_eq!(
        fixture.registry.record(&fixture.run_id)?.run.state,
        RunState::Approved
    );
    let history = browser.get("/history").await?;
    assert!(history.body.contains("approved") && history.body.contains("because"));
    let run = browser.get(&format!("/run/{}", fixture.run_id)).await?;
    assert!(run.body.contains("approved: not begun yet"));
    Ok(())
}

#[tokio::test]
async fn a_cookie_lets_one_look_and_never_decide() -> anyhow::Result<()> {
    let (fixture, id, code, shown, mut browser) = asked().await?;
    for (without, status) in [
        ("secret", StatusCode::FORBIDDEN),
        ("code", StatusCode::FORBIDDEN),
        ("verdict", StatusCode::UNPROCESSABLE_ENTITY),
    ] {
        let fields: Vec<_> = fields("approve", &code, &shown)
            .into_iter()
            .filter(|(name, _)| *name != without)
            .collect();
        let page = browser.post(&format!("/c/{id}/decide"), &fields).await?;
        assert_eq!(page.status, status, "without {without}: {}", page.body);
        assert_eq!(
            fixture.registry.record(&fixture.run_id)?.run.state,
            RunState::AwaitingV1
        );
    }
    let page = browser
        .post(
            &format!("/c/{id}/decide"),
            &fields("approve", &code, &shown),
        )
        .await?;
    assert_eq!(page.status, StatusCode::OK);
    Ok(())
}

#[tokio::test]
async fn without_the_cookie_nothing_is_shown_but_a_way_on() -> anyhow::Result<()> {
    let (fixture, waiting) = Fixture::waiting()?;
    let path = format!("/c/{}", waiting.checkpoint.checkpoint_id);
    let mut browser = Browser::new(&fixture.registry);
    for hidden in [
        path.as_str(),
        "/",
        "/history",
        &format!("/run/{}", fixture.run_id),
    ] {
        let page = browser.get(hidden).await?;
        assert_eq!(page.status, StatusCode::UNAUTHORIZED);
        assert!(
            page.body.contains("Continue") && page.body.contains(&format!("href=\"{hidden}\""))
        );
        assert!(!page.body.contains("site/index.html"));
    }
    let shown = waiting.plan_digest.to_string();
    let code = fixture
        .registry
        .checkpoint_file(&waiting.checkpoint.checkpoint_id)?
        .code;
    let decided = browser
        .post(&format!("{path}/decide"), &fields("approve", &code, &shown))
        .await?;
    assert_eq!(decided.status, StatusCode::UNAUTHORIZED);
    let mut browser = Browser::signed_in(&fixture.registry).await?;
    assert!(browser.get(&path).await?.body.contains("site/index.html"));
    browser.post("/sign-out", &[]).await?;
    assert_eq!(browser.get(&path).await?.status, StatusCode::UNAUTHORIZED);
    Ok(())
}

#[tokio::test]
async fn the_cookie_belongs_to_this_host_and_to_no_script() -> anyhow::Result<()> {
    let (fixture, _) = Fixture::waiting()?;
    let mut browser = Browser::new(&fixture.registry);
    let page = browser
        .post(
            "/sign-in",
            &[
                ("name", APPROVER),
                ("secret", SECRET),
                ("next", "//evil.example"),
            ],
        )
        .await?;
    let cookie = page
        .headers
        .get("set-cookie")
        .map(|value| value.to_str())
        .transpose()?
        .unwrap_or_default();
    let attributes: Vec<&str> = cookie.split("; ").skip(1).collect();
    assert_eq!(
        attributes,
        ["HttpOnly", "SameSite=Strict", "Path=/", "Max-Age=28800"]
    );
    assert_eq!(
        page.headers.get("location").map(HeaderValue::as_bytes),
        Some(&b"/"[..])
    );
    Ok(())
}

#[tokio::test]
async fn another_host_name_is_refused_so_that_rebinding_gains_nothing() -> anyhow::Result<()> {
    let (fixture, _) = Fixture::waiting()?;
    let mut browser = Browser::signed_in(&fixture.registry).await?;
    for host in [
        "localhost:4100",
        "127.0.0.1:4100",
        "[::1]:4100",
        "LOCALHOST:4100",
    ] {
        assert_eq!(
            browser
                .send(Request::get("/").header("host", host), "")
                .await?
                .status,
            StatusCode::OK,
            "{host}"
        );
    }
    for host in [
        "evil.example",
        "evil.example:4100",
        "localhost",
        "localhost:4101",
        "localhost:4100.evil.example",
    ] {
        let page = browser
            .send(Request::get("/").header("host", host), "")
            .await?;
        assert_eq!(page.status, StatusCode::FORBIDDEN, "{host}");
    }
    let twice = Request::get("/")
        .header("host", HOST)
        .header("host", "evil.example");
    assert_eq!(browser.send(twice, "").await?.status, StatusCode::FORBIDDEN);
    assert_eq!(
        browser.send(Request::get("/"), "").await?.status,
        StatusCode::FORBIDDEN
    );
    Ok(())
}

#[tokio::test]
async fn a_form_of_another_page_is_refused() -> anyhow::Result<()> {
    let (fixture, waiting) = Fixture::waiting()?;
    let id = &waiting.checkpoint.checkpoint_id;
    let file = fixture.registry.checkpoint_file(id)?;
    let shown = waiting.plan_digest.to_string();
    let mut browser = Browser::signed_in(&fixture.registry).await?;
    let path = format!("/c/{id}/decide");
    let body = form(&fields("approve", &file.code, &shown));
    let post = |origin: Option<&str>| {
        let request = Request::post(&path)
            .header("host", HOST)
            .header("content-type", "application/x-www-form-urlencoded");
        origin.map_or_else(
            || Request::post(&path).header("host", HOST),
            |origin| request.header("origin", origin),
        )
    };
    for origin in [
        "http://evil.example",
        "http://localhost",
        "http://localhost:4101",
        "https://localhost:4100",
        "http://127.0.0.1:4100",
        "null",
    ] {
        let page = browser.send(post(Some(origin)), &body).await?;
        assert_eq!(page.status, StatusCode::FORBIDDEN, "{origin}");
    }
    assert_eq!(
        browser.send(post(None), &body).await?.status,
        StatusCode::FORBIDDEN
    );
    assert_eq!(
        fixture.registry.record(&fixture.run_id)?.run.state,
        RunState::AwaitingV1
    );
    assert_eq!(
        browser.send(post(Some(ORIGIN)), &body).await?.status,
        StatusCode::OK
    );
    Ok(())
}

#[tokio::test]
async fn an_agents_token_opens_nothing_here() -> anyhow::Result<()> {
    let (fixture, waiting) = Fixture::waiting()?;
    let token = fixture
        .registry
        .add_token(crate::store::TokenKind::Agent, "other-agent", None)?;
    let bearer = format!("Bearer {}", token.token.as_str());
    let mut browser = Browser::signed_in(&fixture.registry).await?;
    let path = format!("/c/{}", waiting.checkpoint.checkpoint_id);
    for (method, path) in [
        (Method::GET, "/".to_owned()),
        (Method::GET, path.clone()),
        (Method::POST, format!("{path}/decide")),
    ] {
        let request = Request::builder()
            .method(&method)
            .uri(&path)
            .header("host", HOST)
            .header("origin", ORIGIN);
        let page = browser
            .send(request.header("authorization", &bearer), "")
            .await?;
        assert_eq!(page.status, StatusCode::FORBIDDEN, "{method} {path}");
    }
    assert_eq!(browser.get(&path).await?.status, StatusCode::OK);
    Ok(())
}

#[tokio::test]
async fn every_answer_forbids_scripts_frames_caches_and_foreign_readers() -> anyhow::Result<()> {
    let (fixture, waiting) = Fixture::waiting()?;
    let mut browser = Browser::signed_in(&fixture.registry).await?;
    for path in [
        "/",
        "/style.css",
        "/nowhere",
        "/sign-in",
        &format!("/c/{}", waiting.checkpoint.checkpoint_id),
    ] {
        let page = browser.get(path).await?;
        let header = |name: &str| page.headers.get(name).and_then(|value| value.to_str().ok());
        assert_eq!(
            header("content-security-policy"),
            Some(
                "default-src 'none'; style-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
            ),
            "{path}"
        );
        assert_eq!(header("x-content-type-options"), Some("nosniff"));
        assert_eq!(header("cache-control"), Some("no-store"));
        assert_eq!(header("access-control-allow-origin"), None);
        assert!(
            !page.body.contains("<script") && !page.body.contains(" style="),
            "{path}"
        );
    }
    Ok(())
}

#[tokio::test]
async fn a_page_whose_plan_was_superseded_is_told_so_with_the_way_to_the_new_one()
-> anyhow::Result<()> {
    let (fixture, old) = Fixture::waiting()?;
    let id = &old.checkpoint.checkpoint_id;
    let code = fixture.registry.checkpoint_file(id)?.code;
    let mut browser = Browser::signed_in(&fixture.registry).await?;
    browser.get(&format!("/c/{id}")).await?;
    let new = fixture
        .submit(&fixture.plan("other content", &[])?)?
        .checkpoint
        .checkpoint_id;
    let page = browser
        .post(
            &format!("/c/{id}/decide"),
            &fields("approve", &code, old.plan_digest.as_str()),
        )
        .await?;
    assert_eq!(page.status, StatusCode::CONFLICT, "{}", page.body);
    assert!(
        page.body.contains("superseded") && page.body.contains(&format!("/c/{new}")),
        "{}",
        page.body
    );
    let closed = browser.get(&format!("/c/{id}")).await?;
    assert!(closed.body.contains("superseded") && !closed.body.contains("name=\"verdict\""));
    assert!(!closed.body.contains(&code));
    Ok(())
}

#[tokio::test]
async fn a_decision_about_one_revision_does_not_fit_the_next() -> anyhow::Result<()> {
    let (fixture, old) = Fixture::waiting()?;
    let old_code = fixture
        .registry
        .checkpoint_file(&old.checkpoint.checkpoint_id)?
        .code;
    let new = fixture.submit(&fixture.plan("other content", &[])?)?;
    let id = &new.checkpoint.checkpoint_id;
    let code = fixture.registry.checkpoint_file(id)?.code;
    let mut browser = Browser::signed_in(&fixture.registry).await?;
    let path = format!("/c/{id}/decide");
    let stale = browser
        .post(&path, &fields("approve", &code, old.plan_digest.as_str()))
        .await?;
    assert_eq!(stale.status, StatusCode::CONFLICT);
    let replayed = browser
        .post(
            &path,
            &fields("approve", &old_code, new.plan_digest.as_str()),
        )
        .await?;
    assert_eq!(replayed.status, StatusCode::FORBIDDEN);
    assert!(replayed.body.contains("Nothing was decided") && replayed.body.contains("because"));
    let right = browser
        .post(&path, &fields("approve", &code, new.plan_digest.as_str()))
        .await?;
    assert_eq!(right.status, StatusCode::OK);
    Ok(())
}

#[tokio::test]
async fn of_two_who_decide_at_once_the_second_is_told_who_won_and_how() -> anyhow::Result<()> {
    let (fixture, waiting) = Fixture::waiting()?;
    fixture.registry.enrol("ben", SECRET, true)?;
    let id = &waiting.checkpoint.checkpoint_id;
    let code = fixture.registry.checkpoint_file(id)?.code;
    let shown = waiting.plan_digest.to_string();
    let mut ana = Browser::signed_in(&fixture.registry).await?;
    let mut ben = Browser::signed_in(&fixture.registry).await?;
    let path = format!("/c/{id}/decide");
    let of_ana = fields("reject", &code, &shown);
    let mut of_ben = fields("approve", &code, &shown);
    of_ben.retain(|(name, _)| *name != "approver");
    of_ben.push(("approver", "ben"));
    let (first, second) = tokio::join!(ana.post(&path, &of_ana), ben.post(&path, &of_ben));
    let (first, second) = (first?, second?);
    let (winner, loser, name) = if first.status == StatusCode::OK {
        (first, second, APPROVER)
    } else {
        (second, first, "ben")
    };
    assert_eq!(
        (winner.status, loser.status),
        (StatusCode::OK, StatusCode::CONFLICT)
    );
    assert!(
        loser.body.contains("faster") && loser.body.contains(name),
        "{}",
        loser.body
    );
    assert_eq!(fixture.registry.record(&fixture.run_id)?.decisions.len(), 1);
    Ok(())
}

#[tokio::test]
async fn a_no_needs_a_reason_and_what_was_typed_is_kept_except_secrets() -> anyhow::Result<()> {
    let (_fixture, id, code, shown, mut browser) = asked().await?;
    let mut without = fields("reject", &code, &shown);
    without.retain(|(name, _)| *name != "reason");
    let page = browser.post(&format!("/c/{id}/decide"), &without).await?;
    assert_eq!(page.status, StatusCode::UNPROCESSABLE_ENTITY);
    assert!(page.body.contains("needs a reason") && !page.body.contains(SECRET));
    Ok(())
}

#[tokio::test]
async fn strangers_who_guess_at_the_sign_in_do_not_keep_a_signed_in_approver_from_deciding()
-> anyhow::Result<()> {
    let (_fixture, id, code, shown, mut browser) = asked().await?;
    let mut stranger = Browser {
        router: browser.router.clone(),
        cookie: None,
    };
    let guess = [("name", "nobody"), ("secret", "not the secret")];
    let mut statuses = Vec::new();
    for _ in 0..5 {
        statuses.push(stranger.post("/sign-in", &guess).await?.status);
    }
    assert_eq!(statuses[4], StatusCode::TOO_MANY_REQUESTS, "{statuses:?}");
    let decided = browser
        .post(
            &format!("/c/{id}/decide"),
            &fields("approve", &code, &shown),
        )
        .await?;
    assert_eq!(decided.status, StatusCode::OK, "{}", decided.body);
    Ok(())
}

#[tokio::test]
async fn guessing_is_slowed_down_for_that_source_while_stopping_a_run_still_works()
-> anyhow::Result<()> {
    let (fixture, id, code, shown, mut browser) = asked().await?;
    let mut wrong = fields("approve", &code, &shown);
    wrong.retain(|(name, _)| *name != "secret");
    wrong.push(("secret", "not the secret"));
    let path = format!("/c/{id}/decide");
    let mut statuses = Vec::new();
    for _ in 0..5 {
        statuses.push(browser.post(&path, &wrong).await?.status);
    }
    assert_eq!(statuses[0], StatusCode::FORBIDDEN);
    assert_eq!(statuses[4], StatusCode::TOO_MANY_REQUESTS, "{statuses:?}");
    // Even the right secret has to wait now, from here.
    let right = browser
        .post(&path, &fields("approve", &code, &shown))
        .await?;
    assert_eq!(right.status, StatusCode::TOO_MANY_REQUESTS);
    assert!(
        browser
            .get(&format!("/c/{id}"))
            .await?
            .body
            .contains("Approve revision 1")
    );
    // Another source is not affected.
    let router = router(
        fixture.registry.clone(),
        SocketAddr::from(([127, 0, 0, 1], 4100)),
    )
    .layer(MockConnectInfo(SocketAddr::from(([127, 0, 0, 2], 50_000))));
    let mut other = Browser {
        router,
        cookie: None,
    };
    let signed_in = other
        .post("/sign-in", &[("name", APPROVER), ("secret", SECRET)])
        .await?;
    assert_eq!(signed_in.status, StatusCode::SEE_OTHER);
    fixture
        .registry
        .kill(&fixture.run_id, "human:uid:0", "enough")?;
    assert_eq!(
        fixture.registry.record(&fixture.run_id)?.run.state,
        RunState::Aborted
    );
    Ok(())
}

#[tokio::test]
async fn a_body_larger_than_any_form_is_refused() -> anyhow::Result<()> {
    let (fixture, waiting) = Fixture::waiting()?;
    let path = format!("/c/{}/decide", waiting.checkpoint.checkpoint_id);
    let mut browser = Browser::signed_in(&fixture.registry).await?;
    let large = "x".repeat(MOST_BYTES + 1);
    let page = browser.post(&path, &[("reason", &large)]).await?;
    assert_eq!(page.status, StatusCode::PAYLOAD_TOO_LARGE);
    assert_eq!(browser.get("/").await?.status, StatusCode::OK);
    Ok(())
}

/// A checkpoint that waits, its id, code and what a form must say was shown, and somebody who has signed in.
async fn asked() -> anyhow::Result<(Fixture, String, String, String, Browser)> {
    let (fixture, waiting) = Fixture::waiting()?;
    let id = waiting.checkpoint.checkpoint_id;
    let code = fixture.registry.checkpoint_file(&id)?.code;
    let browser = Browser::signed_in(&fixture.registry).await?;
    Ok((fixture, id, code, waiting.plan_digest.to_string(), browser))
}

/// What a browser would show of a page: tags gone, entities back.
fn visible_text(html: &str) -> String {
    let mut text = String::new();
    let mut in_tag = false;
    for character in html.chars() {
        match character {
            '<' => in_tag = true,
            '>' => in_tag = false,
            character if !in_tag => text.push(character),
            _ => {}
        }
    }
    text.replace("&lt;", "<")
        .replace("&gt;", ">")
        .replace("&quot;", "\"")
        .replace("&amp;", "&")
}

#[tokio::test]
async fn a_hostile_plan_of_64_kib_is_shown_whole_and_harmless() -> anyhow::Result<()> {
    let fixture = Fixture::new()?;
    let hostile = concat!(
        "</p><script>alert(1)</script><img src=x onerror=alert(2)><form action=//evil.example>",
        "\u{202e}gnp.exe\u{200b}\u{1b}[2J\u{1b}[1;1H &amp; &lt;b&gt; \u{feff}раypal "
    );
    let long = hostile.repeat(40);
    let content = format!(
        "<style>*{{display:none}}</style>\n{}",
        "all of it, line after line\n".repeat(1_500)
    );
    let accepted = fixture.submit(&fixture.plan(&content, &[&long])?)?;
    let mut browser = Browser::signed_in(&fixture.registry).await?;
    let page = browser
        .get(&format!("/c/{}", accepted.checkpoint.checkpoint_id))
        .await?;
    assert_eq!(page.status, StatusCode::OK);
    let body = &page.body;
    for never in [
        "<script",
        "<img",
        "<form action",
        "<style>",
        "\u{202e}",
        "\u{200b}",
        "\u{1b}",
        "\u{feff}",
    ] {
        assert!(!body.contains(never), "{never:?}");
    }
    let text = visible_text(body);
    assert!(
        text.contains(&shared::visible::prose(&long)),
        "the agent's words are cut"
    );
    assert!(text.contains(&content), "the content is cut");
    assert!(text.contains("RIGHT-TO-LEFT OVERRIDE") && text.contains("ZERO WIDTH SPACE"));
    let json = fixture
        .registry
        .checkpoint_file(&accepted.checkpoint.checkpoint_id)?
        .plan_json;
    assert!(json.len() > 45_000, "{}", json.len());
    assert!(
        text.contains(&shared::visible::machine(&json, false)),
        "the canonical plan is cut"
    );
    Ok(())
}

#[tokio::test]
async fn the_page_itself_is_small() -> anyhow::Result<()> {
    let (fixture, waiting) = Fixture::waiting()?;
    let id = &waiting.checkpoint.checkpoint_id;
    let mut browser = Browser::signed_in(&fixture.registry).await?;
    let page = browser.get(&format!("/c/{id}")).await?;
    let style = browser.get("/style.css").await?;
    let total = page.body.len() + style.body.len();
    assert!(
        total < 50 * 1024,
        "{} + {} bytes",
        page.body.len(),
        style.body.len()
    );
    Ok(())
}
