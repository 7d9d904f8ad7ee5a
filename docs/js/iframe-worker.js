// Search in pages that are opened as files: browsers refuse them workers, so the script of a worker
// runs in a hidden frame.
if (location.protocol === "file:") {
  window.Worker = class extends EventTarget {
    constructor(url) {
      super()
      const frame = document.createElement("iframe")
      frame.hidden = true
      document.body.appendChild(frame)
      this.inside = frame.contentWindow
      const load = src => new Promise((resolve, reject) => {
        const script = this.inside.document.createElement("script")
        Object.assign(script, { src, onload: resolve, onerror: reject })
        this.inside.document.body.appendChild(script)
      })
      this.inside.postMessage = data => this.dispatchEvent(new MessageEvent("message", { data }))
      this.inside.importScripts = (...urls) =>
        urls.reduce((done, src) => done.then(() => load(src)), Promise.resolve())
      this.ready = load(url)
    }

    set onmessage(handle) {
      this.addEventListener("message", handle)
    }

    postMessage(data) {
      this.ready.then(() => this.inside.dispatchEvent(new MessageEvent("message", { data })))
    }

    terminate() {}
  }
}
