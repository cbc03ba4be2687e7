// Searches without a server: the index is a script, so that a page that was opened from disk may read it, too.
(() => {
  const root = (typeof base_url === "undefined" ? "." : base_url).replace(/\/$/, "");

  function load(name) {
    return new Promise((done, failed) => {
      const script = document.createElement("script");
      script.src = `${root}/search/${name}`;
      script.onload = done;
      script.onerror = failed;
      document.head.append(script);
    });
  }

  function excerpt(text, words) {
    const at = Math.max(0, ...words.map((word) => text.toLowerCase().indexOf(word)));
    const begin = Math.max(0, at - 60);
    return (begin ? "… " : "") + text.slice(begin, begin + 220) + (text.length > begin + 220 ? " …" : "");
  }

  function show(place, query, index, documents) {
    // Not `index.search`: a query such as `--strict` or `tfds:NAME` is no expression of lunr's language.
    const found = index.query((asked) => {
      for (const word of lunr.tokenizer(query).map((token) => lunr.trimmer(token).toString())) {
        asked.term(word, {boost: 4});
        asked.term(word, {wildcard: lunr.Query.wildcard.TRAILING});
      }
    });
    place.replaceChildren(...found.slice(0, 40).map(({ref}) => {
      const article = document.createElement("article");
      const heading = document.createElement("h3");
      const link = document.createElement("a");
      link.href = `${root}/${ref}`;
      link.textContent = documents[ref].title;
      heading.append(link);
      const text = document.createElement("p");
      text.textContent = excerpt(documents[ref].text, query.toLowerCase().trim().split(/\s+/));
      article.append(heading, text);
      return article;
    }));
    if (!found.length) {
      place.textContent = `Nothing is found for “${query}”.`;
    }
  }

  document.addEventListener("DOMContentLoaded", async () => {
    const place = document.getElementById("mkdocs-search-results");
    const input = document.getElementById("mkdocs-search-query");
    if (!place || !input) {
      return;
    }
    input.value = new URLSearchParams(location.search).get("q") ?? "";
    await Promise.all([load("lunr.js"), load("index.js")]);
    const documents = Object.fromEntries(window.searchDocuments.map((each) => [each.location, each]));
    const index = lunr(function () {
      this.ref("location");
      this.field("title", {boost: 10});
      this.field("text");
      window.searchDocuments.forEach((each) => this.add(each));
    });
    const update = () => input.value.trim() && show(place, input.value, index, documents);
    input.addEventListener("input", update);
    update();
  });
})();
