//! Which of Groq's built-in tools a request enables.

use super::{
    error::ApiError,
    fields::{Fields, Scalar},
};

/// The bound from the contract of `Authorize`.
const MAX_TOOLS: usize = 16;
const MAX_TOOL_BYTES: usize = 256;
/// The types of tools that the client runs itself; Groq only asks for their calls.
const OF_THE_CLIENT: [&str; 7] =
    ["apply_patch", "computer", "computer_use_preview", "custom", "function", "local_shell", "shell"];
/// The name prefixes of models with tools of their own, and the tools that they enable unless the request says otherwise
/// (Groq's page on Compound).
const COMPOUND: [&str; 2] = ["groq/compound", "compound-beta"];
const OF_COMPOUND: [&str; 3] = ["code_interpreter", "visit_website", "web_search"];

impl Fields {
    /// The names of the tools that Groq runs for the request to `model`, each once.
    pub(super) fn built_in_tools(&self, model: &str) -> Result<Vec<String>, ApiError> {
        let mut names: Vec<&str> = Vec::new();
        // A tool without a type may be one of Groq's.
        for tool in &self.tools {
            names.push(name(tool, "tools")?);
        }
        match &self.enabled_tools {
            Some(enabled) => {
                for tool in enabled {
                    names.push(name(tool, "compound_custom")?);
                }
            }
            None if COMPOUND.iter().any(|start| model.starts_with(start)) => names.extend(OF_COMPOUND),
            None => {}
        }
        names.retain(|name| !OF_THE_CLIENT.contains(name));
        names.sort_unstable();
        names.dedup();
        if names.len() > MAX_TOOLS {
            let message = format!("at most {MAX_TOOLS} built-in tools can be enabled");
            return Err(ApiError::invalid("tools", message));
        }
        Ok(names.into_iter().map(str::to_owned).collect())
    }
}

fn name<'a>(tool: &'a Scalar, param: &'static str) -> Result<&'a str, ApiError> {
    match tool {
        Scalar::Text(name)
            if (1..=MAX_TOOL_BYTES).contains(&name.len()) && !name.chars().any(char::is_control) =>
        {
            Ok(name)
        }
        _ => Err(ApiError::invalid(param, format!("each tool of `{param}` must have a type that is a name"))),
    }
}
