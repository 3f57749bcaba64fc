//! The HTML of the shop. Everything that came from elsewhere is escaped.

use std::fmt::Write;

use serde_json::Value;

/// What one visitor's page shows; a part that could not be had is `None`.
pub struct Page<'a> {
    pub user: Option<String>,
    pub details: Option<&'a Value>,
    pub reviews: Option<&'a Value>,
}

impl Page<'_> {
    pub fn render(&self, product: &Value) -> String {
        let title = text(&product["title"]);
        let mut page = String::with_capacity(4096);
        self.header(&mut page);
        let _ = write!(
            page,
            "<h1>{title}</h1><p class=\"lead\">{}</p><div class=\"cards\">",
            text(&product["descriptionHtml"])
        );
        self.details(&mut page);
        self.reviews(&mut page);
        page.push_str("</div>");
        document(&title, &page)
    }

    fn header(&self, page: &mut String) {
        page.push_str(
            "<header><a href=\"/productpage\"><img src=\"/static/canoe.svg\" alt=\"\">Bookinfo</a>",
        );
        let _ = match &self.user {
            Some(user) => write!(page, "<span>{} · <a href=\"/logout\">Sign out</a></span>", escape(user)),
            None => write!(
                page,
                "<form method=\"post\" action=\"/login\"><input name=\"username\" placeholder=\"User name\" \
                 aria-label=\"User name\" maxlength=\"64\" required><button>Sign in</button></form>"
            ),
        };
        page.push_str("</header>");
    }

    fn details(&self, page: &mut String) {
        page.push_str("<section><h2>Book details</h2>");
        match self.details.and_then(Value::as_object) {
            None => {
                page.push_str("<p class=\"error\">Sorry, the product details are currently unavailable.</p>")
            }
            Some(details) => {
                page.push_str("<dl>");
                for (key, label) in DETAILS {
                    if let Some(value) = details.get(*key) {
                        let _ = write!(page, "<dt>{label}</dt><dd>{}</dd>", text(value));
                    }
                }
                page.push_str("</dl>");
            }
        }
        page.push_str("</section>");
    }

    fn reviews(&self, page: &mut String) {
        page.push_str("<section><h2>Book reviews</h2>");
        match self.reviews.and_then(|answer| Some((answer, answer["reviews"].as_array()?))) {
            None => {
                page.push_str("<p class=\"error\">Sorry, the product reviews are currently unavailable.</p>")
            }
            Some((answer, reviews)) => {
                for review in reviews {
                    let _ = write!(page, "<blockquote><p>{}</p>", text(&review["text"]));
                    rating(page, &review["rating"]);
                    let _ = write!(page, "<footer>{}</footer></blockquote>", text(&review["reviewer"]));
                }
                let _ = write!(page, "<p class=\"by\">Reviews served by {}</p>", text(&answer["podname"]));
            }
        }
        page.push_str("</section>");
    }
}

/// The page at `/`.
pub fn index() -> String {
    document(
        "Bookinfo",
        "<header><a href=\"/\"><img src=\"/static/canoe.svg\" alt=\"\">Bookinfo</a></header><h1>A book shop of four \
         services</h1><p class=\"lead\">The product page asks <b>details</b> and <b>reviews</b>; reviews, in two of its \
         three versions, ask <b>ratings</b>.</p><p><a href=\"/productpage\">Open the product page</a></p>",
    )
}

/// A canoe and its outrigger.
pub const CANOE: &str = "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 32 32\" fill=\"none\" \
    stroke=\"#0b7285\" stroke-width=\"2.5\" stroke-linecap=\"round\"><path d=\"M3 9q13 10 26 0M6 25h20M11 13v12M21 13v12\"/></svg>";

const DETAILS: &[(&str, &str)] = &[
    ("author", "Author"),
    ("year", "Year"),
    ("type", "Type"),
    ("pages", "Pages"),
    ("publisher", "Publisher"),
    ("language", "Language"),
    ("ISBN-10", "ISBN-10"),
    ("ISBN-13", "ISBN-13"),
];

fn rating(page: &mut String, rating: &Value) {
    if let Some(stars) = rating["stars"].as_u64() {
        let stars = usize::try_from(stars.min(5)).unwrap_or(5);
        let color = if rating["color"] == "red" { "red" } else { "black" };
        let (given, missing) = ("★".repeat(stars), "☆".repeat(5 - stars));
        let _ =
            write!(page, "<p class=\"stars {color}\" title=\"{stars} of 5, {color}\">{given}{missing}</p>");
    } else if !rating.is_null() {
        page.push_str("<p class=\"error\">The ratings service is currently unavailable.</p>");
    }
}

fn document(title: &str, content: &str) -> String {
    format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><title>{title}</title><meta name=\"viewport\" \
         content=\"width=device-width\"><link rel=\"icon\" href=\"/static/canoe.svg\"><style>{CSS}</style></head>\
         <body><main>{content}</main></body></html>\n"
    )
}

/// A JSON string or number as text for HTML; nothing for what is neither.
fn text(value: &Value) -> String {
    match value {
        Value::String(text) => escape(text),
        Value::Number(number) => number.to_string(),
        _ => String::new(),
    }
}

fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            other => escaped.push(other),
        }
    }
    escaped
}

const CSS: &str = "\
body{margin:0;background:#f4f6f7;color:#1f2a30;font:16px/1.5 system-ui,sans-serif}main{max-width:58rem;margin:0 auto;\
padding:1rem}header{display:flex;justify-content:space-between;align-items:center;border-bottom:1px solid #d5dde1;\
padding:.5rem 0}header img{width:2rem;vertical-align:middle;margin-right:.5rem}a{color:#0b7285}header>a{font-weight:600;\
text-decoration:none}h1{margin:1.5rem 0 .25rem}.lead{max-width:44rem;color:#47565e}.cards{display:grid;gap:1rem;\
grid-template-columns:repeat(auto-fit,minmax(17rem,1fr))}section{background:#fff;border:1px solid #d5dde1;\
border-radius:.5rem;padding:0 1.25rem 1rem}h2{font-size:1.1rem}dl{display:grid;grid-template-columns:auto 1fr;\
gap:.25rem 1.5rem}dt{color:#47565e}dd{margin:0}blockquote{margin:0 0 1rem}blockquote p{margin:0}\
blockquote footer{color:#47565e;font-size:.9rem}.stars{font-size:1.3rem;letter-spacing:.1rem}.red{color:#d6336c}\
.black{color:#1f2a30}.error{color:#b02a37}.by{color:#47565e;font-size:.85rem}input,button{font:inherit;\
padding:.2rem .6rem;border:1px solid #b8c4ca;border-radius:.3rem}button{background:#0b7285;color:#fff}";

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_others_answered_cannot_become_markup() {
        let hostile = "<script>'\"&";
        let details = json!({"author": hostile});
        let reviews = json!({"podname": hostile, "reviews": [
            {"text": hostile, "reviewer": hostile, "rating": {"stars": u64::MAX, "color": hostile}},
            {"text": [hostile], "rating": {"stars": hostile}},
        ]});
        let page = Page { user: Some(hostile.into()), details: Some(&details), reviews: Some(&reviews) };
        let html = page.render(&json!({"title": hostile, "descriptionHtml": hostile}));
        assert!(!html.contains("<script>"), "{html}");
        assert_eq!(html.matches("&lt;script&gt;&#39;&quot;&amp;").count(), 8, "{html}");
        assert!(html.contains("★★★★★</p>"), "never more than five stars: {html}");
    }
}
