
// A secret that is shown once stands before the page until it is stored, and can be copied by a button.
for (const dialog of document.querySelectorAll("dialog[data-once]")) {
  const line = dialog.querySelector("[data-copy]");
  const code = line.querySelector("code");
  const button = document.createElement("button");
  button.type = "button";
  button.className = "primary";
  button.textContent = line.dataset.copy;
  button.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(code.textContent);
      button.textContent = line.dataset.copied;
    } catch {
      // Without a secure connection browsers copy only what people copy themselves.
      getSelection().selectAllChildren(code);
    }
  });
  line.append(button);
  // Not by `close`, which would be told as if a person had closed it.
  dialog.open = false;
  dialog.showModal();
  button.focus();
  // It leaves with the page only: a key that is pressed too soon must not lose it.
  dialog.addEventListener("cancel", (event) => event.preventDefault());
  dialog.addEventListener("close", () => dialog.show());
}

// A form is sent once: a second press would lose the answer to the first, and with it a secret.
document.addEventListener("submit", (event) => {
  const form = event.target;
  if (form.method !== "post") return;
  if ("sent" in form.dataset) event.preventDefault();
  form.dataset.sent = "";
});
addEventListener("pageshow", () => {
  for (const form of document.querySelectorAll("form[data-sent]")) delete form.dataset.sent;
});
