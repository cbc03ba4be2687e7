// Draws the equations that pymdownx.arithmatex has marked, with the KaTeX that lies beside this file: no network.
document.addEventListener("DOMContentLoaded", () => {
  renderMathInElement(document.body, {
    delimiters: [
      {left: "\\[", right: "\\]", display: true},
      {left: "\\(", right: "\\)", display: false},
    ],
    ignoredTags: ["script", "style", "textarea", "pre", "code"],
    throwOnError: true,
  });
});
