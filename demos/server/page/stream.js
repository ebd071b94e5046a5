// The picture as H.264 over WebRTC, for lines on which single pictures are too much.

export class Stream {
  constructor(video, link, failed) {
    Object.assign(this, { video, link, failed });
  }

  async open() {
    this.close();
    const peer = (this.peer = new RTCPeerConnection());
    peer.addTransceiver("video", { direction: "recvonly" });
    peer.ontrack = ({ track }) => {
      this.video.srcObject = new MediaStream([track]);
      this.video.onplaying = () => { this.video.hidden = false; };
    };
    peer.onconnectionstatechange = () => {
      if (peer === this.peer && peer.connectionState === "failed") {
        this.close();
        this.failed("no video gets through; the pictures go on without");
      }
    };
    try {
      await peer.setLocalDescription(await peer.createOffer());
      await new Promise((done) => {
        if (peer.iceGatheringState === "complete") done();
        peer.onicegatheringstatechange = () => peer.iceGatheringState === "complete" && done();
        setTimeout(done, 1500);
      });
      const answer = await fetch(this.link.url("video"), { method: "POST", body: JSON.stringify(peer.localDescription) });
      if (!answer.ok) throw new Error(await answer.text());
      await peer.setRemoteDescription(await answer.json());
    } catch (error) {
      this.close();
      this.failed(error.message);
    }
  }

  close() {
    this.peer?.close();
    this.peer = null;
    this.video.hidden = true;
    this.video.srcObject = null;
  }
}
