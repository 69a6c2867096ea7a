// A worker in a hidden frame: browsers start none from a file, and the site's search is one.
// The theme asks its frame's parent for a class of this name.
if (location.protocol === "file:") {
  window.IFrameWorker = class extends EventTarget {
    constructor(url) {
      super();
      const frame = document.body.appendChild(document.createElement("iframe"));
      frame.hidden = true;
      const inner = frame.contentWindow, whole = new URL(url, document.baseURI).href;
      const load = (name) => new Promise((done, failed) => {
        const script = inner.document.createElement("script");
        script.src = new URL(name, whole).href;
        script.onload = done;
        script.onerror = () => failed(new Error(`cannot load ${script.src}`));
        inner.document.body.appendChild(script);
      });
      inner.importScripts = (...names) => names.reduce(
        (before, name) => before.then(() => load(name)), Promise.resolve());
      // What the script says goes out of the frame; what it is told comes in below.
      inner.postMessage = (data) => this.dispatchEvent(new MessageEvent("message", { data }));
      this.frame = frame;
      this.loaded = load(whole);
    }

    postMessage(data) {
      this.loaded.then(() => this.frame.contentWindow.dispatchEvent(
        new MessageEvent("message", { data })));
    }

    terminate() {
      this.frame.remove();
    }
  };
  window.Worker = window.IFrameWorker;
}
