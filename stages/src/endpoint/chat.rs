//! A conversation as a prompt.

use std::path::Path;

use minijinja::syntax::SyntaxConfig;
use minijinja::value::Serde;
use minijinja::{Environment, ErrorKind, context};
use serde::{Deserialize, Serialize};

/// One message.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Message {
    /// `system`, `user` or `assistant`.
    pub role: String,
    /// What it says.
    pub content: String,
}

/// A model's chat template: that of its directory, or the messages' contents one below the other.
pub struct Chat {
    template: Option<Environment<'static>>,
    /// `bos_token` and `eos_token`, as the template names them.
    tokens: [String; 2],
}

impl Chat {
    /// Reads `chat_template.jinja`, or the `chat_template` in `tokenizer_config.json`, if the directory has one.
    ///
    /// # Errors
    /// The template's syntax is wrong, or one that this version does not know.
    pub fn load(directory: &Path) -> anyhow::Result<Self> {
        let config: serde_json::Value = match fs_err::read(directory.join("tokenizer_config.json")) {
            Ok(bytes) => serde_json::from_slice(&bytes)?,
            Err(_) => serde_json::Value::Null,
        };
        let source = fs_err::read_to_string(directory.join("chat_template.jinja")).ok();
        let source = source.or_else(|| config["chat_template"].as_str().map(str::to_owned));
        // A token is its text, or an object that has it.
        let token = |name: &str| config[name].as_str().or(config[name]["content"].as_str()).unwrap_or("").to_owned();
        let tokens = [token("bos_token"), token("eos_token")];
        let Some(source) = source else { return Ok(Self { template: None, tokens }) };
        let mut environment = Environment::new();
        // As Hugging Face renders them.
        environment.set_syntax(SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build()?);
        environment.add_function("raise_exception", |message: String| -> Result<String, minijinja::Error> {
            Err(minijinja::Error::new(ErrorKind::InvalidOperation, message))
        });
        environment.add_template_owned("chat", source)?;
        Ok(Self { template: Some(environment), tokens })
    }

    /// The conversation as a prompt for the assistant's next message.
    ///
    /// # Errors
    /// The template refuses the messages; the message is for the client.
    pub fn render(&self, messages: &[Message]) -> Result<String, String> {
        let Some(template) = &self.template else {
            let contents: Vec<&str> = messages.iter().map(|message| message.content.as_str()).collect();
            return Ok(contents.join("\n"));
        };
        let [bos_token, eos_token] = &self.tokens;
        let values = context! { messages => Serde(messages), bos_token, eos_token, add_generation_prompt => true };
        template
            .get_template("chat")
            .and_then(|template| template.render(values))
            .map_err(|error| format!("the model's chat template can't show these messages: {error:#}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn messages() -> Vec<Message> {
        let message = |role: &str, content: &str| Message { role: role.to_owned(), content: content.to_owned() };
        vec![message("system", "Be brief."), message("user", "Hi")]
    }

    #[test]
    fn a_models_own_template_shows_its_conversations() {
        let directory = tempfile::tempdir().expect("a folder");
        let plain = Chat::load(directory.path()).expect("no template is fine");
        assert_eq!(plain.render(&messages()).expect("a prompt"), "Be brief.\nHi");

        let template = "{{ bos_token }}{% for message in messages %}\n<|{{ message['role'] }}|>{{ message['content'] }}\n\
            {% endfor %}\n{% if add_generation_prompt %}\n<|assistant|>{% endif %}";
        let config = serde_json::json!({ "bos_token": { "content": "<s>" }, "chat_template": template });
        fs_err::write(directory.path().join("tokenizer_config.json"), config.to_string()).expect("the file");
        let chat = Chat::load(directory.path()).expect("a template");
        assert_eq!(chat.render(&messages()).expect("a prompt"), "<s><|system|>Be brief.\n<|user|>Hi\n<|assistant|>");
    }
}
